/**
 * Which paths are left out of a backup, by patterns as Proxmox VE's `exclude-path` has them.
 *
 * A pattern that begins with `/` is matched from the root of the tree, any other from every folder. `*` stands for
 * anything (a slash too, as GNU tar has it), `?` for one character, `[a-z]` and `[!a-z]` for one of some, `\` takes the next
 * as it is. Matching goes back to the last `*` only, so it takes no longer than path times pattern, whoever chose them.
 */

type Token =
  | { readonly kind: 'any' }
  | { readonly kind: 'one' }
  | { readonly kind: 'of'; readonly isNot: boolean; readonly ranges: readonly (readonly [number, number])[] }
  | { readonly kind: 'is'; readonly code: number }

export type Excludes = (path: string) => boolean

/** Nothing when nothing is left out. @returns true for a path (each character a byte, no slash in front) that is */
export function compileExcludes(patterns: readonly string[]): Excludes | undefined {
  const compiled = patterns.map(compile).filter(({ tokens }) => tokens.length > 0)
  if (compiled.length === 0) return undefined
  return (path) => compiled.some((pattern) => matchesPath(pattern, path))
}

interface Pattern {
  readonly isAnchored: boolean
  readonly tokens: readonly Token[]
  /** What every match begins with. */
  readonly prefix: string
}

function compile(pattern: string): Pattern {
  const bytes = Buffer.from(pattern).toString('latin1').replace(/\/+$/, '')
  const isAnchored = bytes.startsWith('/')
  const tokens = tokensOf(bytes.replace(/^\/+/, ''))
  const firstWild = tokens.findIndex(({ kind }) => kind !== 'is')
  const plain = firstWild < 0 ? tokens : tokens.slice(0, firstWild)
  const prefix = plain.map((token) => (token.kind === 'is' ? String.fromCharCode(token.code) : '')).join('')
  return { isAnchored, tokens, prefix }
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = []
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at]
    if (letter === '*') {
      if (tokens.at(-1)?.kind !== 'any') tokens.push({ kind: 'any' })
    } else if (letter === '?') tokens.push({ kind: 'one' })
    else if (letter === '[') {
      const [token, end] = setAt(text, at)
      tokens.push(token)
      at = end
    } else {
      if (letter === '\\' && at + 1 < text.length) at += 1
      tokens.push({ kind: 'is', code: text.charCodeAt(at) })
    }
  }
  return tokens
}

/** The set that begins here and where it ends; a bracket that is never closed is itself. */
function setAt(text: string, from: number): [Token, number] {
  const isNot = text[from + 1] === '!' || text[from + 1] === '^'
  const first = from + (isNot ? 2 : 1)
  // A closing bracket in front is one of the characters.
  const end = text.indexOf(']', first + 1)
  if (end < 0) return [{ kind: 'is', code: text.charCodeAt(from) }, from]
  const ranges: [number, number][] = []
  for (let at = first; at < end; at += 1) {
    const isRange = text[at + 1] === '-' && at + 2 < end
    ranges.push([text.charCodeAt(at), text.charCodeAt(isRange ? at + 2 : at)])
    if (isRange) at += 2
  }
  return [{ kind: 'of', isNot, ranges }, end]
}

function matchesPath(pattern: Pattern, path: string): boolean {
  if (matches(pattern, path, 0)) return true
  if (pattern.isAnchored) return false
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) {
    if (matches(pattern, path, at + 1)) return true
  }
  return false
}

function matches({ tokens, prefix }: Pattern, path: string, from: number): boolean {
  if (!path.startsWith(prefix, from)) return false
  let [at, token] = [from, 0]
  let retry: { at: number; token: number } | undefined
  while (at < path.length || token < tokens.length) {
    const next = tokens[token]
    if (next?.kind === 'any') {
      retry = { at, token: token + 1 }
      token += 1
      continue
    }
    const taken = next === undefined ? 0 : takes(next, path, at)
    if (taken > 0) {
      at += taken
      token += 1
    } else if (retry !== undefined && retry.at < path.length) {
      retry.at += 1
      ;({ at, token } = retry)
    } else return false
  }
  return true
}

/** How many bytes of the path a token stands for; 0 when it does not match. */
function takes(token: Token, path: string, at: number): number {
  if (at >= path.length) return 0
  const code = path.charCodeAt(at)
  switch (token.kind) {
    case 'any':
      return 0
    case 'is':
      return code === token.code ? 1 : 0
    case 'of':
      return token.ranges.some(([low, high]) => code >= low && code <= high) === token.isNot ? 0 : 1
    case 'one':
      return characterBytes(path, at, code)
  }
}

/** A character of UTF-8, where there is one; else a byte. */
function characterBytes(path: string, at: number, first: number): number {
  const wanted = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1
  for (let next = 1; next < wanted; next += 1) {
    if ((path.charCodeAt(at + next) & 0xc0) !== 0x80) return 1
  }
  return wanted
}
