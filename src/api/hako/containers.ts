/** `/hako/containers`: what Proxmox VE's API has no words for. Programs run in a container, files in and out. */
import { asVmid } from '#base/ids.ts'
import { KiB, MiB } from '#base/bytes.ts'
import { array, integer, object, optional, string } from '#base/schema/schema.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { nodeName, vmid as vmidSchema } from '#base/schema/standard.ts'
import { endpoint } from '../call.ts'
import { containerFileEndpoints } from './container-files.ts'

/** A call waits for its answer; what runs longer belongs into a terminal. */
const [usualSeconds, mostSeconds] = [30, 50]
const mostOutput = 4 * MiB

export const execEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/containers/{node}/{vmid}',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: { node: nodeName, vmid: vmidSchema },
    permission: anyone,
    returns: array(object({ name: string() })),
    isOwn: true,
    handle: () => ['exec', 'file', 'files'].map((name) => ({ name })),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/containers/{node}/{vmid}/exec',
    description: 'Run a program in a running container, as its root, and wait for its end.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      vmid: vmidSchema,
      command: array(string({ maxLength: 64 * KiB }), {
        description: 'Program and its arguments; no shell is between.',
      }),
      'input-data': optional(string({ description: 'Given on standard input.', maxLength: 64 * KiB })),
      timeout: optional(
        integer({ description: 'Seconds it may take.', default: usualSeconds, minimum: 1, maximum: mostSeconds }),
      ),
    },
    isOwn: true,
    // What root inside may do is more than to look: the right the agent of a virtual machine asks for.
    permission: check('VM.GuestAgent.Unrestricted', '/vms/{vmid}'),
    returns: object({
      exitcode: integer({ description: 'Its exit code.' }),
      'out-data': string({ description: 'What it printed.' }),
      'err-data': string({ description: 'What it printed on standard error.' }),
    }),
    cli: {
      command: ['ct', 'exec'],
      positional: ['vmid', 'command'],
      follow: {
        input: 'input-data',
        inputBytes: 64 * KiB,
        out: 'out-data',
        err: 'err-data',
        cut: [],
        code: 'exitcode',
      },
      examples: ['ct exec 200 -- cat /etc/os-release'],
    },
    async handle({ vmid, command, 'input-data': input, timeout = usualSeconds }, { services, signal }) {
      const ran = await services.guests.runInside(asVmid(vmid), {
        command,
        ...(input === undefined ? {} : { input }),
        timeoutMs: timeout * 1000,
        outputBytes: mostOutput,
        signal,
      })
      return { exitcode: ran.code, 'out-data': ran.stdout, 'err-data': ran.stderr }
    },
  }),
  ...containerFileEndpoints,
]
