import assert from 'node:assert/strict'
import { test } from 'node:test'
import stringWidth from 'string-width'
import fc from 'fast-check'
import { systemClock } from '#base/clock.ts'
import type { Fault } from '#base/fault.ts'
import { integer, optional, string, boolean, array, indexed } from '#base/schema/schema.ts'
import { upid as upidSchema, vmid } from '#base/schema/standard.ts'
import { commandsOf } from '#rest/command.ts'
import { check, endpointsOf } from '#rest/endpoint.ts'
import { offlineCommands } from '#commands.ts'
import { parseFor } from './arguments.ts'
import { builtInCommands } from './built-in.ts'
import { distance, findCommand, suggestions } from './command-tree.ts'
import { candidates, completionScript, sourceOf } from './complete.ts'
import type { Connection } from './connection.ts'
import { withOwnOptions } from './built-in.ts'
import { exampleOf } from './example.ts'
import { commandHelp, listHelp, overview } from './help.ts'
import { printed } from './print.ts'
import { filledPath } from './path.ts'
import { paramsOf } from './run-command.ts'
import { fit, tableText } from './table.ts'
import { languageFrom, say } from './text.ts'
import { phaseBar, waitForTask } from './wait.ts'

const endpoint = endpointsOf<null>()
const base = { permission: check('VM.Audit', '/'), handle: () => 'x' }
const commands = commandsOf<null>([
  endpoint({
    ...base,
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/start',
    description: 'Start a virtual machine.',
    params: {
      node: string(),
      vmid,
      timeout: optional(integer({ minimum: 0 })),
      onboot: optional(boolean()),
      ...indexed('scsi', 31, string()),
    },
    returns: upidSchema,
    cli: { command: ['vm', 'start'], positional: ['vmid'], examples: ['vm start 100'] },
  }),
  endpoint({
    ...base,
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/agent/exec',
    description: 'Run a program in the guest.',
    params: { node: string(), vmid, command: array(string()) },
    returns: string(),
    cli: { command: ['vm', 'exec'], positional: ['vmid', 'command'] },
  }),
  endpoint({
    ...base,
    method: 'GET',
    path: '/nodes/{node}/qemu',
    description: 'List.',
    params: { node: string() },
    returns: string(),
    cli: { command: ['vm', 'list'], id: 'vmid', columns: ['vmid', 'name'] },
  }),
])
const start = findCommand(commands, ['vm', 'start', '100'])

test('a command line becomes the call its endpoint describes', () => {
  assert.ok(start)
  const params = paramsOf(
    start.command,
    parseFor(start.command, ['100', '--timeout', '5', '--no-onboot', '--scsi0', 'local:4']),
    'lab',
  )
  assert.deepEqual(params, { vmid: '100', timeout: '5', onboot: '0', scsi0: 'local:4', node: 'lab' })
  assert.equal(filledPath(start.command.path, params), '/nodes/lab/qemu/100/status/start')
  assert.equal(start.command.isTask, true)
})

test('a boolean may be written in every way people write it', () => {
  assert.ok(start)
  for (const [args, value] of [
    [['--onboot'], '1'],
    [['--onboot', '1'], '1'],
    [['--onboot', '0'], '0'],
    [['--onboot=0'], '0'],
    [['--no-onboot'], '0'],
  ] as const) {
    assert.equal(parseFor(start.command, ['100', ...args]).params.onboot, value, args.join(' '))
  }
})

test('what follows -- goes to the guest untouched', () => {
  const found = findCommand(commands, ['vm', 'exec'])
  assert.ok(found)
  assert.deepEqual(paramsOf(found.command, parseFor(found.command, ['100', '--', 'ls', '-l', '/']), 'lab').command, [
    'ls',
    '-l',
    '/',
  ])
})

test('a missing, an unknown and a surplus argument are each named', () => {
  assert.ok(start)
  const { command } = start
  assert.throws(
    () => paramsOf(command, parseFor(command, []), 'lab'),
    (error: Fault) => 'vmid' in (error.fields ?? {}) && error.remedy === 'hako vm start <vmid>',
  )
  assert.throws(() => parseFor(command, ['100', '--colour', 'red']), /--colour/)
  assert.throws(
    () => parseFor(command, ['100', '--timeout', '-5']),
    (error: Fault) =>
      error.message === '--timeout is given no value' && (error.remedy ?? '').includes('--timeout=-VALUE'),
  )
  assert.throws(
    () => parseFor(command, ['-x100']),
    (error: Fault) => error.message === "Unknown option '-x'" && (error.remedy ?? '').endsWith('is given after --.'),
  )
  assert.deepEqual(parseFor(command, ['--', '-x100']).positionals, ['-x100'])
  assert.throws(() => paramsOf(command, parseFor(command, ['100', '200']), 'lab'), /'200' is too much/)
  assert.throws(() => parseFor(command, ['100', '-o', 'xml']), /--output is 'xml'/)
})

test('help shows usage, bounds, one line per family, and the example', async () => {
  assert.ok(start)
  const help = await commandHelp(start.command, { language: 'en', width: 80 })
  for (const part of ['hako vm start <vmid>', '--timeout N', '--scsi[0-30] TEXT', '--[no-]onboot', 'hako vm start 100'])
    assert.ok(help.includes(part), part)
  assert.ok(!help.includes('scsi17'))
})

test('every help of the node fits 80 columns, in both languages', async () => {
  const list = offlineCommands('lab')
  for (const language of ['en', 'ja'] as const) {
    const own = [...list.commands, ...builtInCommands(language)]
    const texts = await Promise.all([
      overview(own, { language, width: 80 }),
      ...own.map(({ words }) => listHelp(own, words.slice(0, 1), { language, width: 80 })),
      ...own.map((command) => commandHelp({ ...command, examples: [] }, { language, width: 80 })),
    ])
    const isLong = (line: string) => stringWidth(line) > 80 && !line.startsWith(`${say(language, 'usage')}:`)
    assert.deepEqual(texts.flatMap((text) => text.split('\n')).filter(isLong), [])
  }
})

test('every example is a command line the node takes', () => {
  const all = offlineCommands('lab').commands.map(withOwnOptions)
  for (const command of all) {
    for (const example of command.examples.length > 0 ? command.examples : [exampleOf(command)]) {
      // `task show "$(hako task list -o id)"`, `… < file`, `'two words'`
      const words = [...example.replace(/ [<>|].*$/, '').matchAll(/"[^"]*"|(?:[^\s']|'[^']*')+/g)].map(([word]) =>
        word.replace(/["']/g, ''),
      )
      const found = findCommand(all, words)
      assert.ok(found, example)
      const secrets = Object.entries(found.command.options).filter(([, { isSecret }]) => isSecret)
      const parsed = parseFor(found.command, found.rest)
      // The CLI asks for secrets, and makes the app's itself.
      const asked = {
        ...Object.fromEntries(secrets.map(([secret]) => [secret, 'typed'])),
        ...(example.startsWith('user tfa add') ? { type: 'totp' } : {}),
      }
      assert.doesNotThrow(
        () => paramsOf(found.command, { ...parsed, params: { ...asked, ...parsed.params } }, 'lab'),
        example,
      )
    }
  }
})

test('what is taken for the sake of other programs alone is named in the help, and not explained', async () => {
  const found = findCommand(offlineCommands('lab').commands, ['backup', 'now'])
  assert.ok(found)
  const help = await commandHelp(found.command, { language: 'en', width: 80 })
  assert.match(help, /Usage: hako backup now \[vmid\]/)
  assert.match(help, /without effect here or refused: [^:]*--pigz/)
  assert.doesNotMatch(help, /--pigz N|Without effect\./)
})

test('a slip of the finger finds its command', () => {
  assert.deepEqual(suggestions(['vm start', 'vm stop', 'vm list'], 'vm strat')[0], 'vm start')
  fc.assert(
    fc.property(
      fc.string({ maxLength: 12 }),
      fc.string({ maxLength: 12 }),
      (a, b) => distance(a, b) === distance(b, a) && (distance(a, b) === 0) === (a === b),
    ),
  )
})

test('completion offers nouns, verbs, options, values and ids', async () => {
  const ids = () => Promise.resolve(['100', '101', '200'])
  const at = (...typed: string[]) => candidates(commands, [['lab']], typed, ids)
  assert.deepEqual(await at(''), ['lab', 'vm'])
  assert.deepEqual(await at('vm', 's'), ['start'])
  assert.deepEqual(await at('vm', 'start', '1'), ['100', '101'])
  assert.deepEqual(await at('vm', 'start', '100', '--tim'), ['--timeout'])
  assert.deepEqual(await at('vm', 'list', '--output', 'y'), ['yaml'])
  assert.match(completionScript('zsh'), /#compdef hako/)
  assert.throws(() => completionScript('fish'), /must be bash or zsh/)
})

test('completion knows which list has what an option or a later argument names', async () => {
  const all = offlineCommands('lab').commands
  const at = async (...typed: string[]) => {
    const asked: unknown[] = []
    await candidates(all, [], typed, (command, parameter, given) => {
      const source = sourceOf(all, command, parameter)
      asked.push(source && `${filledPath(source.command.path, { node: 'lab', ...given })} ${source.column}`)
      return Promise.resolve([])
    })
    return asked[0]
  }
  assert.equal(await at('vm', 'rollback', '100', ''), '/nodes/lab/qemu/100/snapshot name')
  assert.equal(await at('backup', 'now', '100', '--storage', ''), '/nodes/lab/storage storage')
  assert.equal(await at('vm', 'start', '--timeout', '5', ''), '/nodes/lab/qemu vmid')
  assert.equal(await at('vm', 'create', '300', '--pool', 'w'), '/pools poolid')
  assert.equal(await at('vm', 'clone', '100', ''), undefined)
  assert.equal(await at('ct', 'rollback', '200', ''), '/nodes/lab/lxc/200/snapshot name')
  assert.equal(await at('ct', 'start', ''), '/nodes/lab/lxc vmid')
  assert.equal(await at('ct', 'move-volume', '200', ''), undefined)
})

test('a table fits the terminal, whatever is in it', async () => {
  const row = fc.record({
    vmid: fc.integer(),
    name: fc.string({ maxLength: 200, unit: 'grapheme' }),
    note: fc.constant('日本語の長い説明文です、とても長い'),
  })
  const rows = fc.array(row, { minLength: 1, maxLength: 5 })
  await fc.assert(
    fc.asyncProperty(rows, fc.integer({ min: 40, max: 120 }), async (some, width) => {
      for (const line of (await tableText(some, ['vmid', 'name', 'note'], width)).split('\n'))
        assert.ok(stringWidth(line) <= width, `${stringWidth(line)} > ${width}: ${line}`)
    }),
    { numRuns: 50 },
  )
  assert.deepEqual(fit([10, 50], 40), [10, 30])
})

test('where a table is too wide, columns that say nothing go before others are cut', async () => {
  const rows = [
    { iface: 'vmbr0', cidr: '192.0.2.2/24', gateway: undefined, comments: '' },
    { iface: 'vmbr1', cidr: '198.51.100.254/24', gateway: undefined, comments: '' },
  ]
  const all = ['iface', 'cidr', 'gateway', 'comments']
  assert.equal(await tableText(rows, all, 26), 'IFACE  CIDR\nvmbr0  192.0.2.2/24\nvmbr1  198.51.100.254/24')
  assert.match(await tableText(rows, all, 80), /^IFACE {2}CIDR {15}GATEWAY {2}COMMENTS\n/)
})

test('moments stand in a table as people read them, and a user who does not expire never does', async () => {
  const [head, first] = (
    await tableText(
      [{ userid: 'bob@pve', expire: 0, email: '', created: 1_795_185_733 }],
      ['userid', 'expire', 'email', 'created'],
      80,
    )
  ).split('\n')
  assert.equal(head, 'USERID   EXPIRE  EMAIL  CREATED')
  assert.match(first ?? '', /^bob@pve {2}never {3}- {6}2026-11-2\d \d\d:\d\d:13$/)
})

test('the same rows print as table, JSON, YAML, NDJSON and ids', async () => {
  const rows = [
    { vmid: 100, name: 'web' },
    { vmid: 101, name: 'db' },
  ]
  const as = (format: 'table' | 'json' | 'yaml' | 'ndjson' | 'id') =>
    printed(rows, { format, columns: ['vmid', 'name'], id: 'vmid', language: 'en', width: undefined })
  assert.equal(await as('table'), 'VMID  NAME\n100   web\n101   db')
  assert.deepEqual(JSON.parse(await as('json')), rows)
  assert.equal(await as('yaml'), '- vmid: 100\n  name: web\n- vmid: 101\n  name: db')
  assert.equal(await as('ndjson'), '{"vmid":100,"name":"web"}\n{"vmid":101,"name":"db"}')
  assert.equal(await as('id'), '100\n101')
  assert.equal(await printed([], { format: 'table', language: 'ja', width: 80 }), '表示するものはありません')
})

test('waiting shows each log line once and ends as the task ends', async () => {
  const [shown, bars]: [string[], string[]] = [[], []]
  let asked = 0
  const exits = ['OK', 'VM 100 NOT proven: reached L0 of L6', 'broken']
  const connectionFor = (exitstatus: string): Connection => ({
    socketPath: '',
    call: (_, path, params) => {
      if (path.endsWith('/log')) {
        const all = ['one', 'two', 'three', 'Do it again.', 'TASK ERROR: broken'].map((t, at) => ({ n: at + 1, t }))
        return Promise.resolve({ data: all.slice(Number(params?.start ?? 0), asked < 3 ? asked + 1 : undefined) })
      }
      asked += 1
      return Promise.resolve({
        data:
          asked < 3
            ? { status: 'running', phase: 'write', fraction: 0.5, rate: 3 * 2 ** 20, left: 65 }
            : {
                status: 'stopped',
                exitstatus,
                remedy: 'Do it again.',
                ...(exitstatus.includes('NOT proven') ? { kind: 'unproven' } : {}),
              },
      })
    },
  })
  const wait = (exitstatus: string) =>
    waitForTask({
      connection: connectionFor(exitstatus),
      upid: 'UPID:lab:x',
      language: 'en',
      quiet: false,
      timeoutSeconds: 5,
      show: (line, isTransient) => void (isTransient ? bars : shown).push(line),
      clock: systemClock,
    })
  assert.equal(await wait(exits[0] ?? ''), 'OK')
  assert.deepEqual(shown, ['one', 'two', 'three'])
  await assert.rejects(wait(exits[1] ?? ''), (error: Fault) => error.kind === 'unproven')
  await assert.rejects(wait(exits[2] ?? ''), (error: Fault) => error.kind === 'failed')
  assert.equal(phaseBar('write', 0.5), 'write        ██████████──────────  50 %')
  assert.equal(bars[0], 'write        ██████████──────────  50 %  3.0 MiB/s  1:05 left')
})

test('what to do next is said once, also when the task ends between two questions', async () => {
  const shown: string[] = []
  const remedy = 'Make one with: hako backup now 300'
  const log = [{ n: 1, t: 'looking' }]
  let asked = 0
  const call: Connection['call'] = async (_, path) => {
    if (path.endsWith('/log')) return { data: [...log] }
    if (++asked === 1) return { data: { status: 'running' } }
    const kind = 'missing'
    // The log is whole a moment before the task is known to have ended.
    if (asked === 2) {
      log.push({ n: 2, t: remedy }, { n: 3, t: 'TASK ERROR: no backup' })
      return { data: { status: 'running' } }
    }
    return { data: { status: 'stopped', exitstatus: 'no backup', kind, remedy } }
  }
  const ended = waitForTask({
    connection: { socketPath: '', call },
    upid: 'UPID:lab:x',
    language: 'en',
    quiet: false,
    timeoutSeconds: 5,
    show: (line, isTransient) => void (isTransient || shown.push(line)),
  })
  await assert.rejects(ended, (fault: Fault) => fault.remedy === remedy && fault.message === 'no backup')
  assert.deepEqual(shown, ['looking'])
})

test('a log longer than one reply is shown whole', async () => {
  const all = Array.from({ length: 1234 }, (_, at) => ({ n: at + 1, t: `line ${at + 1}` }))
  const shown: string[] = []
  await waitForTask({
    connection: {
      socketPath: '',
      call: (_, path, { start = '0', limit = '0' } = {}) =>
        Promise.resolve({
          data: path.endsWith('/log')
            ? all.slice(Number(start), Number(start) + Number(limit))
            : { status: 'stopped', exitstatus: 'OK' },
        }),
    },
    upid: 'UPID:lab:x',
    language: 'en',
    quiet: false,
    timeoutSeconds: 5,
    show: (line) => shown.push(line),
  })
  assert.deepEqual(
    shown,
    all.map(({ t }) => t),
  )
})

test('the language follows --lang, then the environment', () => {
  assert.equal(languageFrom(undefined, { LANG: 'ja_JP.UTF-8' }), 'ja')
  assert.equal(languageFrom('en', { LANG: 'ja_JP.UTF-8' }), 'en')
  assert.equal(languageFrom(undefined, {}), 'en')
  assert.equal(languageFrom(undefined, { LC_ALL: '', LC_MESSAGES: '', LANG: 'ja_JP.UTF-8' }), 'ja')
})
