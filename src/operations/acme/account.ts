/** Accounts at ACME servers: made, changed, ended. What the server agreed to is written down when it has. */
import { generateKeyPairSync } from 'node:crypto'
import type { AcmeAccounts } from '#cluster/acme/accounts.ts'
import { messageOf } from '#base/fault.ts'
import { openAcme } from '#cluster/acme/client.ts'
import type { Settings } from '#settings.ts'
import { operation } from '#tasks/operation.ts'

export interface AccountDeps {
  readonly acmeAccounts: AcmeAccounts
  readonly settings: Pick<Settings, 'caFile'>
}

export interface RegisterAccount {
  readonly name: string
  readonly contact: readonly string[]
  readonly directory: string
  /** Terms that were agreed to. */
  readonly tos?: string | undefined
  readonly eabKid?: string | undefined
  readonly eabHmacKey?: string | undefined
}

export interface UpdateAccount {
  readonly name: string
  /** Unchanged when absent. */
  readonly contact?: readonly string[] | undefined
}

export interface DeactivateAccount {
  readonly name: string
}

const facts = { id: ({ name }: DeactivateAccount) => name, locks: ({ name }: DeactivateAccount) => [`acme/${name}`] }

export const registerAccount = operation<RegisterAccount, AccountDeps>('acmeregister', {
  ...facts,
  secrets: ['eabHmacKey'],
})
  .step('key', {
    async do({ params, deps }) {
      await deps.acmeAccounts.requireNew(params.name)
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      await deps.acmeAccounts.setKey(params.name, privateKey.export({ format: 'pem', type: 'pkcs8' }).toString())
    },
    // The key goes with the account: an account that is there was there before.
    async undo({ params, deps }) {
      const names = await deps.acmeAccounts.names()
      if (!names.includes(params.name)) await deps.acmeAccounts.removeKey(params.name)
    },
  })
  .step('account', {
    async do({ params, deps, log }) {
      const { name, directory, contact, eabKid: kid, eabHmacKey: hmacKey } = params
      const binding = kid === undefined || hmacKey === undefined ? undefined : { kid, hmacKey }
      const { caFile } = deps.settings
      const client = await openAcme({ directory, key: await deps.acmeAccounts.key(name), binding, caFile })
      const location = await client.register(contact, params.tos !== undefined)
      log(`registered at ${directory}: ${location}`)
      return location
    },
    // A server that cannot be told keeps an account whose key nobody has: that is as good as none.
    async undo({ params, deps, log }) {
      const { directory, name } = params
      try {
        const client = await openAcme({
          directory,
          key: await deps.acmeAccounts.key(name),
          caFile: deps.settings.caFile,
        })
        await client.endIfThere()
      } catch (error) {
        log(`there is no account to end: ${messageOf(error)}`)
      }
    },
  })
  .step('record', {
    async do({ params, deps, done }) {
      const { name, directory, contact, tos } = params
      await deps.acmeAccounts.put(name, {
        directory,
        location: done.account,
        contact: [...contact],
        ...(tos === undefined ? {} : { tos }),
      })
    },
    async undo({ params, deps }) {
      await deps.acmeAccounts.forget(params.name)
    },
  })

export const updateAccount = operation<UpdateAccount, AccountDeps>('acmeupdate', facts).step('account', {
  async do({ params, deps, log }) {
    const account = await deps.acmeAccounts.get(params.name)
    const client = await open(deps, params.name)
    if (params.contact === undefined) await client.account()
    else {
      await client.setContact(params.contact)
      await deps.acmeAccounts.put(params.name, { ...account, contact: [...params.contact] })
    }
    log(`the account at ${account.directory} is up to date`)
  },
})

// No undo: an account that was ended stays ended.
export const deactivateAccount = operation<DeactivateAccount, AccountDeps>('acmedeactivate', facts).step('account', {
  async do({ params, deps, log }) {
    const { directory } = await deps.acmeAccounts.get(params.name)
    await (await open(deps, params.name)).deactivate()
    await deps.acmeAccounts.forget(params.name)
    await deps.acmeAccounts.removeKey(params.name)
    log(`the account at ${directory} has ended`)
  },
})

/** @throws Fault `missing` */
export async function open({ acmeAccounts: accounts, settings }: AccountDeps, name: string) {
  const { directory, location } = await accounts.get(name)
  return openAcme({ directory, location, key: await accounts.key(name), caFile: settings.caFile })
}
