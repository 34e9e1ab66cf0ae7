// Tests of two entries, from the numbers of images that one certifies and the other does not. `leaderboards.paired` does
// the same where the page is made; here any two entries may be chosen.

// Exact two-sided McNemar test: min(1, 2 P(B <= min(lost, gained))), B binomial with lost + gained trials and probability
// 1/2. The binomial coefficients are added as whole numbers, so that only the last step rounds.
function mcnemar(lost, gained) {
  const trials = lost + gained;
  let term = 1n;
  let sum = 1n;
  for (let successes = 1; successes <= Math.min(lost, gained); successes += 1) {
    term = (term * BigInt(trials - successes + 1)) / BigInt(successes);
    sum += term;
  }
  // A float64 holds 53 bits: 64 of the sum are enough, and no power of two overflows.
  const cut = Math.max(0, sum.toString(2).length - 64);
  return Math.min(1, Number(sum >> BigInt(cut)) * 2 ** (cut + 1 - trials));
}

// Holm's adjusted p-values: of the ascending ones, the i-th of m times m - i + 1, never below the one before it.
function holm(values) {
  const order = values.map((_, at) => at).sort((a, b) => values[a] - values[b]);
  const adjusted = [];
  let least = 0;
  order.forEach((at, place) => (adjusted[at] = least = Math.max(least, Math.min(1, values[at] * (values.length - place)))));
  return adjusted;
}

// Two digits, as on every board; the cell's title has all of them.
const shownP = (value) => (value < 1e-4 ? "< 0.0001" : String(Number(value.toPrecision(2))));

const READING_OF_TESTS =
  "p: exact two-sided McNemar test; where A and B are equally good, an image that only one of them certifies is as likely gained as lost. " +
  "Holm: p corrected for all radii of this table. Both are meant for two entries named before their numbers were seen; " +
  "of two that were chosen because of the board they are too small. The board's own standings are corrected for all pairs of entries.";
const READING_WITHOUT_TESTS =
  "No tests: one of the two is read from a published log, and nobody knows whether its images met the same noise.";
