/** Patterns must match the whole text, as in PVE's schema; the anchored form is compiled once per pattern. */
const anchored = new WeakMap<RegExp, RegExp>()

export function matchesWhole(pattern: RegExp, text: string): boolean {
  let whole = anchored.get(pattern)
  if (whole === undefined) {
    // A `g` or `y` pattern would remember where its last match ended and answer differently each time.
    whole = new RegExp(`^(?:${pattern.source})$`, pattern.flags.replace(/[gy]/g, ''))
    anchored.set(pattern, whole)
  }
  return whole.test(text)
}
