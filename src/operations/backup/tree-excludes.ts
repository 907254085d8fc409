/** What people want left out of a backup, as it concerns one of a container's trees. */
import { matchesGlob } from 'node:path'
import type { BackupHow } from './half.ts'

/** What no backup is made for, in the words of Proxmox VE. */
const temporary = ['/tmp/?*', '/var/tmp/?*', '/var/run/?*.pid']

/** All patterns of a backup: beginning with `/` they are of the container's root, others of every folder. */
export function patternsOf({ excludePaths = [], excludesTemporary = true }: BackupHow): string[] {
  return [...excludePaths, ...(excludesTemporary ? temporary : [])]
}

/**
 * The patterns as they are for a tree that is mounted at that path inside. What is of another tree is not among them.
 * A pattern that means the folder it is mounted on, or one above, means everything in it.
 */
export function patternsBelow(path: string, patterns: readonly string[]): string[] {
  const folders = path.split('/').filter(Boolean)
  return patterns.flatMap((pattern) => {
    if (!pattern.startsWith('/')) return [pattern]
    const parts = pattern.split('/').filter(Boolean)
    const isAbove = folders.every((folder, at) => parts[at] === undefined || matchesGlob(folder, parts[at]))
    if (!isAbove) return []
    const rest = parts.slice(folders.length)
    return [rest.length === 0 ? '/*' : `/${rest.join('/')}`]
  })
}
