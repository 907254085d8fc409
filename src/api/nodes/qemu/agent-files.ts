/** `/nodes/{node}/qemu/{vmid}/agent`: programs and files in the guest. */
import { array, boolean, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { limits } from '#base/limits.ts'
import { readGuestFile, startInGuest, statusInGuest, writeGuestFile } from '#guests/agent-files.ts'
import { check, checkAny } from '#rest/endpoint.ts'
import { endpoint } from '../../call.ts'
import { withAgent } from './agent.ts'
import { guestAt } from './at.ts'

const on = '/vms/{vmid}'
const unrestricted = 'VM.GuestAgent.Unrestricted'
const file = string({ description: 'Path in the guest.', minLength: 1, maxLength: 4096 })

export const agentFileEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/agent/exec',
    description: 'Run a program in the guest, by its agent. A shell is one only when it is named.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      command: array(string({ description: 'Program or argument.', maxLength: 65_536 }), {
        description: 'Program, then its arguments.',
      }),
      'input-data': optional(string({ description: 'Text for its standard input.', maxLength: 65_536 })),
    },
    permission: check(unrestricted, on),
    returns: object({ pid: integer({ description: 'Its pid in the guest, for exec-status.' }) }),
    cli: {
      command: ['vm', 'exec'],
      positional: ['vmid', 'command'],
      id: 'pid',
      follow: {
        path: '/nodes/{node}/qemu/{vmid}/agent/exec-status',
        by: 'pid',
        input: 'input-data',
        inputBytes: 64 * 1024,
        ended: 'exited',
        out: 'out-data',
        err: 'err-data',
        cut: ['out-truncated', 'err-truncated'],
        code: 'exitcode',
        killedBy: 'signal',
      },
      examples: ['vm exec 100 hostname', "vm exec 100 -- sh -c 'ls -l /tmp | wc -l'"],
    },
    handle: ({ vmid, command, 'input-data': input }, call) =>
      withAgent(vmid, call, async (agent) => ({ pid: await startInGuest(agent, command, input) })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/agent/exec-status',
    description: 'State and output of a program started in the guest.',
    proxyTo: 'node',
    params: { ...guestAt, pid: integer({ description: 'As exec returned it.', minimum: 0, maximum: 2 ** 31 }) },
    permission: check(unrestricted, on),
    returns: object({
      exited: boolean({ description: 'It has ended.' }),
      exitcode: optional(integer({ description: 'Its exit code.' })),
      signal: optional(integer({ description: 'The signal that ended it.' })),
      'out-data': optional(string({ description: 'What it printed.' })),
      'err-data': optional(string({ description: 'What it printed as errors.' })),
      'out-truncated': optional(boolean({ description: 'It printed more.' })),
      'err-truncated': optional(boolean({ description: 'It printed more errors.' })),
    }),
    cli: { command: ['vm', 'exec-status'], positional: ['vmid', 'pid'], examples: ['vm exec-status 100 1234'] },
    handle: ({ vmid, pid }, call) => withAgent(vmid, call, (agent) => statusInGuest(agent, pid)),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/agent/file-read',
    description: 'Read a file in the guest.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      file,
      count: optional(
        integer({
          description: 'Bytes at most.',
          minimum: 1,
          maximum: limits.agent.fileBytes,
          default: limits.agent.fileBytes,
        }),
      ),
      offset: optional(
        integer({ description: 'Bytes to leave out.', minimum: 0, maximum: Number.MAX_SAFE_INTEGER, default: 0 }),
      ),
      decode: optional(boolean({ description: 'Off: the content comes as base64.', default: true })),
    },
    permission: checkAny(['VM.GuestAgent.FileRead', unrestricted], on),
    returns: object({
      content: string({ description: 'Its content.' }),
      truncated: optional(boolean({ description: 'The file goes on.' })),
    }),
    cli: {
      command: ['vm', 'read-file'],
      raw: 'content',
      positional: ['vmid', 'file'],
      examples: ['vm read-file 100 /etc/hostname'],
    },
    handle: ({ vmid, file: path, count, offset, decode = true }, call) =>
      withAgent(vmid, call, async (agent) => {
        const { content, isTruncated } = await readGuestFile(agent, path, { count, offset })
        return { content: content.toString(decode ? 'utf8' : 'base64'), ...(isTruncated ? { truncated: true } : {}) }
      }),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/agent/file-write',
    description: 'Write a file in the guest.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      file,
      content: string({ description: 'Its content.', maxLength: 61_440 }),
      encode: optional(boolean({ description: 'Off: the content is base64 already.', default: true })),
    },
    permission: checkAny(['VM.GuestAgent.FileWrite', unrestricted], on),
    returns: nothing,
    cli: {
      command: ['vm', 'write-file'],
      positional: ['vmid', 'file', 'content'],
      examples: ["vm write-file 100 /etc/motd 'hello'"],
    },
    handle: ({ vmid, file: path, content, encode = true }, call) =>
      withAgent(vmid, call, async (agent) => {
        await writeGuestFile(agent, path, Buffer.from(content, encode ? 'utf8' : 'base64'))
        return null
      }),
  }),
]
