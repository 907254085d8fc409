/**
 * Who is at the other end of a unix socket, by the kernel's word.
 *
 * `api.sock` is for people and programs of this machine: uid 0 is root@pam, another uid only who is a user
 * of the realm pam here. `front.sock` is for the front process alone, and connecting there proves nothing
 * about the person behind it.
 */
import { readFile } from 'node:fs/promises'
import type { Identity } from '#rest/endpoint.ts'

export type PeerCredentials = (socketFd: number) => { readonly pid: number; readonly uid: number; readonly gid: number }

/** Turns a uid of this machine into a user, or nobody. */
export type LocalUsers = (uid: number) => Promise<Identity | undefined>

const root: Identity = { user: 'root@pam', authId: 'root@pam' }

/** @param isUser whether `name@pam` is a user of this node */
export function localUsers(isUser: (user: string) => Promise<boolean>, passwdFile = '/etc/passwd'): LocalUsers {
  return async (uid) => {
    if (uid === 0) return root
    const name = nameOf(uid, await readFile(passwdFile, 'utf8'))
    const user = name === undefined ? undefined : `${name}@pam`
    return user !== undefined && (await isUser(user)) ? { user, authId: user } : undefined
  }
}

function nameOf(uid: number, passwd: string): string | undefined {
  return passwd
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields[2] === String(uid))?.[0]
}
