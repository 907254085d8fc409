/** Lists of numbers as options spell them: processors `0,5,8-11`, or `0-1;4` inside a property string. */

/** Numbers in the list, each once, in order; undefined for what is no such list. */
export function numbersIn(text: string, separator: ',' | ';'): number[] | undefined {
  const numbers = new Set<number>()
  for (const part of text.split(separator)) {
    const [, from = '', to = from] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim()) ?? []
    if (from === '' || Number(to) < Number(from)) return undefined
    for (let number = Number(from); number <= Number(to); number += 1) numbers.add(number)
  }
  return [...numbers].toSorted((a, b) => a - b)
}
