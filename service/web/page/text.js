// Numbers, times and sizes for people.

const minus = (text) => text.replaceAll("-", "−");

/** Returns a number with so many decimals; the strings that stand for infinities stay as they are. */
export function fixed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return minus(value);
  return minus(value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
}

/** Returns a number with so many significant digits, as an exponential where that is shorter. */
export function shown(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return minus(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return minus(value.toExponential(digits - 2));
  return minus(value.toLocaleString("en", { maximumSignificantDigits: digits }));
}

/** Returns a whole number with its thousands apart. */
export function count(value) {
  return value.toLocaleString("en");
}

/** Returns a duration given in seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
  if (seconds < 90) return `${seconds.toFixed(1)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Returns how long ago a time was, in words. */
export function ago(time) {
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  if (seconds < 60) return "just now";
  const [unit, length] = seconds < 3600 ? ["minute", 60] : seconds < 86400 ? ["hour", 3600] : ["day", 86400];
  return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / length), unit);
}

/** Returns the end of an id, which tells it from others at a glance. */
export function short(id) {
  return `…${id.slice(-6)}`;
}

/** Returns one value, or several with commas. */
export function several(value) {
  return Array.isArray(value) ? value.join(", ") : String(value);
}

/** Returns what a feature is called, counted from one where it has no name. */
export function featureName(columns, feature) {
  return columns?.[feature] ?? `feature ${feature + 1}`;
}

/** Returns rows as CSV with a header. */
export function csv(header, rows) {
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [header.map(quoted), ...rows].map((row) => row.join(",")).join("\r\n") + "\r\n";
}
