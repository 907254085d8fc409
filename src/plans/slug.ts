/** Of the id of a plan, fit for names of tasks and evidence. */
export function slugOf(id: string): string {
  const name = id.split('/').at(-1) ?? ''
  return name
    .replace(/\.md$/, '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, 30)
    .replaceAll(/^-+|-+$/g, '')
}
