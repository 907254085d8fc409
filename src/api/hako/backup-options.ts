/** Our own branch: what holds for all backups of this node, and the webhook that hears how they went. */
import { invalid, missing } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { enumOf, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { BackupOptions, type BackupOptionsValue, defaultAtOnce } from '#cluster/backup-options.ts'
import { requireWebhook, tellOnce } from '#operations/backup/webhook.ts'
import { check, rootOnly } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const options = {
  'at-once': optional(
    integer({
      description: 'Backup tasks that read guests at the same time; the others wait.',
      minimum: 1,
      maximum: 64,
      default: defaultAtOnce,
    }),
  ),
  webhook: optional(string({ description: 'URL that is told by POST, in JSON, how a backup went.', maxLength: 2048 })),
  'webhook-on': optional(
    enumOf(['failure', 'always'], {
      description: 'When the webhook is told; an alarm or a hint about a guest counts as a failure.',
      default: 'failure',
    }),
  ),
  'webhook-header': optional(
    string({
      description: 'Header the secret goes into; Authorization when absent.',
      pattern: /[A-Za-z][A-Za-z0-9-]*/,
      maxLength: 64,
    }),
  ),
  'webhook-secret-file': optional(
    string({
      description: "File of root's alone on this node; its one line is the value of that header.",
      pattern: /\/[^\0\n]+/,
      maxLength: 4096,
    }),
  ),
} as const

const ofWebhook = ['webhook-on', 'webhook-header', 'webhook-secret-file']

export const backupOptionsEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/backup-options',
    description: 'What holds for all backups of this node.',
    params: {},
    permission: check('Sys.Audit', '/'),
    returns: object(options),
    isOwn: true,
    cli: { command: ['backup', 'options'], examples: ['backup options'] },
    handle: async (_, { services }) => shown(await new BackupOptions(services.store).get()),
  }),
  endpoint({
    method: 'PUT',
    path: '/hako/backup-options',
    description: 'Say how many backups run at once, and which webhook is told how they went.',
    params: {
      ...options,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
    },
    permission: rootOnly,
    returns: nothing,
    isOwn: true,
    cli: {
      command: ['backup', 'set-options'],
      examples: [
        'backup set-options --at-once 2',
        'backup set-options --webhook https://alerts.example.org/hooks/lab --webhook-secret-file /root/hook.secret',
        'backup set-options --delete webhook',
      ],
    },
    async handle({ delete: removed, ...given }, { services }) {
      await new BackupOptions(services.store).change((before) => changed(before, given, splitList(removed ?? '')))
      return null
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/backup-options/try-webhook',
    description: 'Tell the webhook of a job without guests, to see whether it is heard.',
    params: {},
    permission: rootOnly,
    returns: nothing,
    isOwn: true,
    cli: { command: ['backup', 'try-webhook'], examples: ['backup try-webhook'] },
    async handle(_, { services }) {
      const { webhook } = await new BackupOptions(services.store).get()
      if (!webhook) throw missing('backup option', 'webhook')
      const { settings, clock } = services
      const now = clock.now()
      const trial = { upid: '', job: 'try-webhook', storage: '', startedMs: now, endedMs: now }
      await tellOnce(webhook, { node: settings.node, ...trial, isFailed: false, guests: [] }, services)
      return null
    },
  }),
]

type Shown = {
  readonly 'at-once'?: number | undefined
  readonly webhook?: string | undefined
  readonly 'webhook-on'?: 'failure' | 'always' | undefined
  readonly 'webhook-header'?: string | undefined
  readonly 'webhook-secret-file'?: string | undefined
}

function shown({ atOnce, webhook }: BackupOptionsValue): Shown {
  return {
    ...(atOnce === undefined ? {} : { 'at-once': atOnce }),
    ...(webhook === undefined ? {} : { webhook: webhook.url, 'webhook-on': webhook.on }),
    ...(webhook?.header === undefined ? {} : { 'webhook-header': webhook.header }),
    ...(webhook?.secretFile === undefined ? {} : { 'webhook-secret-file': webhook.secretFile }),
  }
}

/** @throws Fault `invalid` naming the field */
function changed(before: BackupOptionsValue, given: Shown, removed: readonly string[]): BackupOptionsValue {
  const unknown = removed.find((name) => !(name in options))
  if (unknown !== undefined) throw invalid({ delete: `there is no option '${unknown}'` })
  const gone = removed.includes('webhook') ? [...removed, ...ofWebhook] : removed
  const kept: Shown = Object.fromEntries(Object.entries(shown(before)).filter(([name]) => !gone.includes(name)))
  // A secret is for the address it was given for.
  const { 'webhook-secret-file': _, ...withoutSecret } = kept
  const isElsewhere = given.webhook !== undefined && given.webhook !== kept.webhook
  const after: Shown = { ...(isElsewhere ? withoutSecret : kept), ...given }
  const { 'at-once': atOnce, webhook: url, 'webhook-header': header, 'webhook-secret-file': secretFile } = after
  const lonely = url === undefined ? ofWebhook.find((name) => name in given) : undefined
  if (lonely !== undefined) throw invalid({ [lonely]: "needs 'webhook'" })
  const webhook =
    url === undefined
      ? undefined
      : {
          url,
          on: after['webhook-on'] ?? ('failure' as const),
          ...(header === undefined ? {} : { header }),
          ...(secretFile === undefined ? {} : { secretFile }),
        }
  if (webhook) requireWebhook(webhook)
  return { ...(atOnce === undefined ? {} : { atOnce }), ...(webhook ? { webhook } : {}) }
}
