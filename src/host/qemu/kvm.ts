/**
 * Is KVM usable? Found out by running a guest on it, the smallest one there is.
 *
 * The tempting way is to look for `/dev/kvm`. But the device can exist and still not carry a guest: inside
 * some virtual machines it stops at the switch to protected mode, or aborts for `-cpu host`. So a ROM of
 * one page goes through everything a kernel's first milliseconds need (`kvm-probe.asm` explains it stage
 * by stage) and prints a letter per stage. Only `ABCDEFG` with exit code 33 counts as usable; anything
 * else, silence included, means software emulation (TCG).
 *
 * The verdict holds for one boot of the machine and one file that is QEMU's program, and is kept as a file under
 * the cache directory; the probe itself takes 20 to 60 ms where KVM is sound, and 0.5 s where it hangs. QEMU is
 * not asked for its version: every start of a guest asks here, and that answer takes as long as another start.
 */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isFault, messageOf } from '#base/fault.ts'
import { searchPath } from '../exec.ts'
import { codeOf, makeDirectory, readIfPresent, writeFileAtomic } from '../files.ts'
import type { Argv, Host } from '../host.ts'
import { bootId } from '../programs/proc.ts'

export type Accelerator = 'kvm' | 'tcg'

export interface Verdict {
  readonly accelerator: Accelerator
  /** A sentence for people: why this one. */
  readonly reason: string
}

interface Remembered extends Verdict {
  readonly bootId: string
  readonly program: string
}

/** Assembled from `kvm-probe.asm`; 413 bytes that stand at the start of the ROM. */
const payload = Buffer.from(
  '+rBB5ukuDwEWmAEPIMAMAQ8iwGbqGwAPAAgAZrgQAI7YjsCO0LwAcAAAsELm6b8AEAAAMcC5ABAAAPOrxwUAEAAAAyAAAMcF+B8AAANAAADHBQAgAAADMAAAxwXwTwAA' +
    'AzAAAMcFADAAAIMAAADHBQgwAACDACAAuAAQAAAPItgPIOCDyCAPIuC5gAAAwA8yDQEBAAAPMA8gwA0BAACADyLA6qkADwAYALBD5ulIuLkAD4D//////+CwRObpSMfH' +
    'AIAAgEi4cQEPgP////9miUcwZsdHMhgAZsdHNACOSMHoEGaJRzZIwegQiUc4ZseHAAEAAP8ASIm/AgEAAA8BnwABAABIx8QAcACAuzQSAADMSIH7IUMAAHVMsEXm6fqc' +
    'WKkAAgAAdT77nFipAAIAAHQ0+rBG5ulmjMioA3UouQEBAMC4AFAAALoAAAAADzAPAfgPAfgPMj0AUAAAdQiwR+bpsBDm9LAh5umwEeb09Ov9uyFDAABIzwAAAAAAAAAA' +
    '//8AAACazwD//wAAAJLPAP//AAAAmq8AHwB4AQ8=',
  'base64',
)
const ROM_BYTES = 64 * 1024
/** Where the processor starts: a far jump to the payload, `jmp F000:0000`. */
const RESET_VECTOR = 0xfff0
const ALL_STAGES = 'ABCDEFG'
const DONE_CODE = 33
const PROBE_MS = 500

const stageNames: Readonly<Record<string, string>> = {
  A: 'protected mode',
  B: 'long mode',
  C: 'the high half of the address space',
  D: 'interrupts',
  E: 'the interrupt flag',
  F: 'ring 0 and swapgs',
  G: 'the end',
}

export interface AcceleratorOptions {
  readonly host: Host
  /** Where the verdict is kept. */
  readonly cacheDir: string
  /** QEMU's program. Default: the one for this machine's processor. */
  readonly qemu?: string
}

/**
 * What guests should run on here. Never fails because of KVM; a fault means that QEMU itself is missing.
 * @throws Fault `missing` when QEMU is not installed.
 */
export async function accelerator(options: AcceleratorOptions): Promise<Verdict> {
  const { host, cacheDir, qemu = 'qemu-system-x86_64' } = options
  const file = join(cacheDir, 'kvm-verdict.json')
  const [boot, program] = await Promise.all([bootId(), programOf(host, qemu)])
  const known = parseRemembered(await readIfPresent(file))
  if (known?.bootId === boot && known.program === program) {
    return { accelerator: known.accelerator, reason: known.reason }
  }
  const verdict = await judge(host, qemu)
  const remembered: Remembered = { ...verdict, bootId: boot, program }
  await makeDirectory(cacheDir)
  await writeFileAtomic(file, `${JSON.stringify(remembered, undefined, 2)}\n`, 0o644)
  return verdict
}

/** Says which program it is, in words that change when it is replaced. */
async function programOf(host: Host, qemu: string): Promise<string> {
  for (const directory of searchPath) {
    const path = join(directory, qemu)
    const file = await stat(path, { bigint: true }).catch(unlessMissing)
    if (file) return [path, file.dev, file.ino, file.size, file.mtimeNs, file.ctimeNs].join(' ')
  }
  // Says that it is missing, in the words used for every program.
  await host.run([qemu, '--version'], { timeoutMs: 10_000 })
  return qemu
}

function unlessMissing(cause: unknown): undefined {
  if (codeOf(cause) !== 'ENOENT') throw cause
}

async function judge(host: Host, qemu: string): Promise<Verdict> {
  if (process.arch !== 'x64') {
    return { accelerator: 'tcg', reason: `no probe for ${process.arch} processors yet; software emulation` }
  }
  return verdictOf(await runProbe(host, qemu, 'kvm'))
}

export interface ProbeResult {
  /** Exit code, or nothing when it was ended by the time limit. */
  readonly code: number | undefined
  readonly trace: string
  /** What QEMU said last. */
  readonly said: string
}

/** Boots the payload once. Exported for the test that runs it under emulation, where it must always pass. */
export async function runProbe(host: Host, qemu: string, on: Accelerator, timeoutMs = PROBE_MS): Promise<ProbeResult> {
  const directory = await mkdtemp(join(tmpdir(), 'hakobune-kvm-'))
  try {
    const [rom, trace] = [join(directory, 'probe.rom'), join(directory, 'trace')]
    await writeFile(rom, probeRom())
    await writeFile(trace, '')
    const ended = await runToEnd(host, probeArgv(qemu, on, rom, trace), timeoutMs)
    return { ...ended, trace: await readFile(trace, 'latin1') }
  } finally {
    await rm(directory, { recursive: true })
  }
}

function probeRom(): Buffer {
  const rom = Buffer.alloc(ROM_BYTES)
  payload.copy(rom)
  rom.set([0xea, 0x00, 0x00, 0x00, 0xf0], RESET_VECTOR)
  return rom
}

function probeArgv(qemu: string, on: Accelerator, rom: string, trace: string): Argv {
  const bare = ['-nodefaults', '-display', 'none', '-no-reboot', '-monitor', 'none']
  const ways = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=1', '-debugcon', `file:${trace}`]
  return [qemu, '-accel', on, '-M', 'pc', '-m', '16', '-cpu', 'qemu64', ...bare, '-bios', rom, ...ways]
}

async function runToEnd(host: Host, argv: Argv, timeoutMs: number): Promise<Omit<ProbeResult, 'trace'>> {
  const anyCode = Array.from({ length: 256 }, (_, code) => code)
  try {
    const { code, stderr } = await host.run(argv, { timeoutMs, okCodes: anyCode })
    return { code, said: stderr.trim().split('\n').at(-1) ?? '' }
  } catch (fault) {
    // Hanging and being ended by a signal (QEMU aborts when KVM misbehaves) are answers here.
    if (isFault(fault, 'timeout') || isFault(fault, 'failed')) return { code: undefined, said: messageOf(fault) }
    throw fault
  }
}

/** What the run of the payload proves. */
export function verdictOf({ code, trace, said }: ProbeResult): Verdict {
  if (code === DONE_CODE && trace === ALL_STAGES) {
    return { accelerator: 'kvm', reason: 'hardware virtualization works: a probe guest ran through all its stages' }
  }
  const stage = stageNames[trace.replaceAll('!', '').at(-1) ?? '']
  const why = stage === undefined ? said || 'no guest starts' : `a probe guest stopped before ${stage}`
  return { accelerator: 'tcg', reason: `/dev/kvm is not usable (${why}); software emulation` }
}

function parseRemembered(text: string | undefined): Remembered | undefined {
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return isRemembered(value) ? value : undefined
  } catch (cause) {
    if (cause instanceof SyntaxError) return undefined // Can be made again, so nobody needs to hear of it.
    throw cause
  }
}

function isRemembered(value: unknown): value is Remembered {
  if (typeof value !== 'object' || value === null) return false
  const text = (key: string) => typeof Reflect.get(value, key) === 'string'
  const kind: unknown = Reflect.get(value, 'accelerator')
  return text('reason') && text('bootId') && text('program') && (kind === 'kvm' || kind === 'tcg')
}
