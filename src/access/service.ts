/**
 * Access: who somebody is, and what they may do. The one door to users, groups, tokens, roles and ACL.
 *
 * State and rules live in the files beside this one; here they meet the store, the keys and the clock.
 * Tickets and CSRF tokens are proven by keys in memory; users, tokens and rights are looked up at the moment
 * of the question, so a withdrawn right is gone with the next request.
 */
import type { Argon2Cost } from '#base/argon2id.ts'
import type { Clock } from '#base/clock.ts'
import { invalid } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { Host } from '#host/host.ts'
import type { Store } from '#store/store.ts'
import { type AclEntry, normalizePath } from './acl.ts'
import { requireConfirmation } from './confirmation.ts'
import * as directory from './directory.ts'
import { type Grant, grantWrites, requireAclPath } from './grant.ts'
import { ConsoleAccess } from './console-access.ts'
import { groupCreation, groupDeletion, groupUpdate } from './group.ts'
import { denied, type Identity, isRoot, userIdentity } from './identity.ts'
import { Keyring } from './keyring.ts'
import { type Credentials, Login, type Proven } from './login.ts'
import { type OpenIdAnswer, OpenIdLogin } from './openid-login.ts'
import { Permissions, type Privileges } from './permissions.ts'
import { Proof } from './proof.ts'
import { PamRealm } from './realms/pam.ts'
import { PveRealm } from './realms/pve.ts'
import { requireRole, roleCreation, roleDeletion, roleUpdate } from './role.ts'
import { HeldFactors } from './tfa/held.ts'
import { SecondFactor } from './tfa/second-factor.ts'
import { TfaService } from './tfa/service.ts'
import { relyingParty } from './tfa/webauthn.ts'
import {
  fullTokenId,
  hashOfSecret,
  infoOf,
  requireToken,
  splitTokenId,
  tokenCreation,
  tokenDeletion,
  type TokenFacts,
  type TokenInfo,
  tokenUpdate,
} from './token.ts'
import {
  passwordChange,
  requireRealm,
  requireUser,
  splitUserId,
  userCreation,
  userDeletion,
  type UserFacts,
  userUpdate,
} from './user.ts'
import type { AccessState, World } from './world.ts'

export interface AccessNeeds {
  readonly store: Store
  readonly accessState: AccessState
  readonly clock: Clock
  readonly random: Random
  /** Directory of the login keys; made when it is missing. */
  readonly keysDir: string
  readonly host: Host
  readonly log: Log
  /** Reads the options of the cluster; without it WebAuthn is not configured. */
  readonly options?: { readonly all: () => Promise<Readonly<Record<string, string>>> }
  readonly passwordCost?: Argon2Cost
  readonly settings?: { readonly caFile?: string }
}

export interface LoginRequest extends Credentials {
  /** Together with `privs`: prove only that the user holds these privileges on this path. */
  readonly path?: string | undefined
  readonly privs?: readonly string[] | undefined
}

export interface LoginReply {
  readonly username: string
  readonly ticket?: string
  /** The ticket is half of one: good together with a second factor, for nothing else. */
  readonly NeedTFA?: number
  readonly CSRFPreventionToken?: string
  readonly cap?: Record<string, Record<string, 1>>
}

/** A token's secret, shown this once. */
export interface NewToken {
  readonly 'full-tokenid': string
  readonly value: string
  readonly info: TokenInfo
}

export class AccessService {
  readonly #needs: AccessNeeds
  readonly #state: AccessState
  readonly #proof: Proof
  readonly #pve: PveRealm
  readonly #login: Login
  /** Through a provider. */
  readonly openId: OpenIdLogin
  /** Second factors. */
  readonly tfa: TfaService
  /** Tickets for consoles, and who may go on looking at one. */
  readonly consoles: ConsoleAccess
  #permissions: { readonly world: World; readonly answers: Permissions } | undefined

  constructor(needs: AccessNeeds) {
    const { store, accessState, clock, random, keysDir, host, log, passwordCost, options } = needs
    this.#needs = needs
    this.#state = accessState
    const keyring = new Keyring({ directory: keysDir, clock, random })
    this.#proof = new Proof({ state: this.#state, keyring, clock })
    this.#pve = new PveRealm({ state: this.#state, random, ...(passwordCost ? { cost: passwordCost } : {}) })
    const known = [this.#pve, new PamRealm({ host })]
    const factors = {
      state: this.#state,
      held: new HeldFactors({ state: this.#state, store }),
      clock,
      random,
      relyingParty: async () => relyingParty((await options?.all())?.webauthn),
    }
    const secondFactor = new SecondFactor(factors)
    this.#login = new Login({ state: this.#state, keyring, clock, log, realms: known, secondFactor })
    const caFile = needs.settings?.caFile
    this.openId = new OpenIdLogin({ state: this.#state, store, keyring, clock, random, log, secondFactor, caFile })
    this.tfa = new TfaService({ ...factors, login: this.#login })
    const judge = (who: Identity, path: string) => this.privilegesOn(who, path)
    this.consoles = new ConsoleAccess({ keyring, proof: this.#proof, clock, judge })
  }

  // Judging

  isRoot(who: Identity): boolean {
    return isRoot(who)
  }

  async privilegesOn(who: Identity, path: string): Promise<Privileges> {
    return (await this.#answers()).on(who.authId, normalizePath(path) ?? path)
  }

  /** Path to privilege to 1 when it propagates, else 0. Of somebody else only with `Sys.Audit` on `/access`. */
  async permissionsOf(
    who: Identity,
    { userid = who.authId, path }: { userid?: string | undefined; path?: string | undefined },
  ): Promise<Record<string, Record<string, 0 | 1>>> {
    const [world, answers] = [await this.#state.read(), await this.#answers()]
    const isOwn = userid === who.authId || splitTokenId(userid)?.userid === who.authId
    if (!isOwn && !answers.on(who.authId, '/access').has('Sys.Audit')) throw denied('/access', 'Sys.Audit')
    if (!world.tokens.has(userid)) requireUser(world, userid)
    const held = path === undefined ? answers.everywhere(userid) : onePath(answers, userid, path)
    return Object.fromEntries([...held].map(([on, privileges]) => [on, asNumbers(privileges)]))
  }

  // Proving who somebody is

  /** @throws Fault `unauthenticated`: `permission denied - invalid PVE ticket`. */
  async ticketIdentity(text: string): Promise<Identity> {
    return await this.#proof.ofTicket(text)
  }

  /**
   * @param text `user@realm!name=secret`, as in the header after `PVEAPIToken=`
   * @throws Fault `unauthenticated`; only who knows the secret hears of an expired token or user
   */
  async tokenIdentity(text: string): Promise<Identity> {
    return await this.#proof.ofToken(text)
  }

  /** Whoever was proven when a task was started, if that one may still act. @param authId user or token */
  async stillGood(authId: string): Promise<Identity | undefined> {
    return this.#proof.stillGood(authId)
  }

  /** Does not wait: the keys are in memory since the ticket of this very request was proven. */
  csrfIsValid(who: Identity, header: string | undefined): boolean {
    return this.#proof.csrfIsValid(who, header)
  }

  async csrfTokenFor(userid: string): Promise<string> {
    return await this.#proof.csrfTokenFor(userid)
  }

  /** @throws Fault `unauthenticated`: `authentication failure`, after three seconds. */
  async login(request: LoginRequest): Promise<LoginReply> {
    const { path, privs } = request
    if (path !== undefined && privs !== undefined) {
      const { userid } = await this.#login.prove(request, (proven) => this.#holdsAll(proven, path, privs))
      return { username: userid }
    }
    return this.#session(await this.#login.prove(request), request.address)
  }

  /** @throws Fault `unauthenticated` saying why nobody is logged in */
  async openIdLogin(answer: OpenIdAnswer): Promise<LoginReply> {
    return this.#session(await this.openId.finish(answer), answer.address)
  }

  /** A session for who is proven by other means, such as the kernel's word on the local socket. */
  async sessionOf(user: string): Promise<{ ticket: string; CSRFPreventionToken: string }> {
    this.#needs.log.info('given a session', { user })
    return this.#proof.write(user)
  }

  async #session({ userid: username, halfTicket }: Proven, address: string): Promise<LoginReply> {
    // What a session consists of is not told by halves; older clients look for the member, so it is there.
    if (halfTicket !== undefined) return { username, ticket: halfTicket, NeedTFA: 1, CSRFPreventionToken: '' }
    this.#needs.log.info('logged in', { user: username, address })
    const answers = await this.#answers()
    return { username, ...(await this.#proof.write(username)), cap: answers.capabilities(username) }
  }

  // Users and their passwords

  async users(who: Identity, filter: directory.UserFilter) {
    const locks = await this.tfa.locks()
    return directory.userItems(await this.#state.read(), await this.#answers(), who.authId, { ...filter, locks })
  }

  async user(userid: string): Promise<directory.UserDetail> {
    return directory.userDetail(await this.#state.read(), userid)
  }

  /** @throws Fault `conflict`: `user 'x' already exists`. */
  async createUser(
    userid: string,
    { password, ...facts }: UserFacts & { password?: string | undefined },
  ): Promise<void> {
    requireRealm(await this.#state.read(), userid)
    const hash = password === undefined ? undefined : await this.#hashFor(userid, password)
    await this.#state.change((world) => userCreation(world, userid, facts, hash))
  }

  async updateUser(userid: string, facts: UserFacts, options: { append?: boolean | undefined } = {}): Promise<void> {
    await this.#state.change((world) => userUpdate(world, userid, facts, options.append))
  }

  async deleteUser(userid: string): Promise<void> {
    await this.#state.change((world) => userDeletion(world, userid))
  }

  /**
   * Everybody but root confirms with his own password, so that a stolen ticket does not become an account.
   * Others' passwords in `pam`, and root's, are for root alone.
   */
  async changePassword(
    who: Identity,
    change: { userid: string; password: string; confirmation?: string | undefined; address: string },
  ): Promise<void> {
    const { userid, password, confirmation, address } = change
    requireUser(await this.#state.read(), userid)
    const isForRoot = who.authId !== userid && splitUserId(userid)?.realm === 'pam'
    if (isForRoot && !isRoot(who)) throw denied('/', 'Permissions.Modify')
    const given = { field: 'confirmation-password', password: confirmation, address }
    await requireConfirmation(this.#login, who, given)
    const hash = await this.#hashFor(userid, password)
    await this.#state.change((world) => passwordChange(world, userid, hash))
  }

  // Tokens

  async tokens(userid: string): Promise<directory.TokenItem[]> {
    return directory.tokenItems(await this.#state.read(), userid)
  }

  async token(userid: string, tokenid: string): Promise<TokenInfo> {
    return infoOf(requireToken(await this.#state.read(), userid, tokenid))
  }

  async createToken(userid: string, tokenid: string, facts: TokenFacts): Promise<NewToken> {
    const { privsep = true, expire = 0, comment } = facts
    const value = this.#newSecret()
    const token = { privsep, expire, ...(comment === undefined ? {} : { comment }), hash: hashOfSecret(value) }
    await this.#state.change((world) => tokenCreation(world, userid, tokenid, token))
    return { 'full-tokenid': fullTokenId(userid, tokenid), value, info: infoOf(token) }
  }

  /** With `regenerate` the old secret ends and the new one is in the reply. */
  async updateToken(
    userid: string,
    tokenid: string,
    {
      drop = [],
      regenerate = false,
      ...facts
    }: TokenFacts & { drop?: readonly string[]; regenerate?: boolean | undefined },
  ): Promise<TokenInfo & Partial<Omit<NewToken, 'info'>>> {
    const value = regenerate ? this.#newSecret() : undefined
    const hash = value === undefined ? {} : { hash: hashOfSecret(value) }
    await this.#state.change((world) => tokenUpdate(world, { userid, tokenid, drop, ...hash }, facts))
    const info = await this.token(userid, tokenid)
    return value === undefined ? info : { ...info, 'full-tokenid': fullTokenId(userid, tokenid), value }
  }

  async deleteToken(userid: string, tokenid: string): Promise<void> {
    await this.#state.change((world) => tokenDeletion(world, userid, tokenid))
  }

  // Roles, groups, ACL

  async roles(): Promise<directory.RoleItem[]> {
    return directory.roleItems(await this.#state.read())
  }

  /** Each privilege with `true`. @throws Fault `missing`: `role 'x' does not exist`. */
  async role(roleid: string): Promise<Record<string, true>> {
    const held = requireRole(await this.#state.read(), roleid)
    return Object.fromEntries(held.map((privilege): [string, true] => [privilege, true]))
  }

  async createRole(roleid: string, privs: readonly string[]): Promise<void> {
    await this.#state.change((world) => roleCreation(world, roleid, privs))
  }

  async updateRole(roleid: string, privs: readonly string[], append = false): Promise<void> {
    await this.#state.change((world) => roleUpdate(world, roleid, privs, append))
  }

  async deleteRole(roleid: string): Promise<void> {
    await this.#state.change((world) => roleDeletion(world, roleid))
  }

  async groups(who: Identity): Promise<directory.GroupItem[]> {
    return directory.groupItems(await this.#state.read(), await this.#answers(), who.authId)
  }

  async group(groupid: string): Promise<{ comment?: string; members: string[] }> {
    return directory.groupDetail(await this.#state.read(), groupid)
  }

  async createGroup(groupid: string, comment?: string): Promise<void> {
    await this.#state.change((world) => groupCreation(world, groupid, comment))
  }

  async updateGroup(groupid: string, comment?: string): Promise<void> {
    await this.#state.change((world) => groupUpdate(world, groupid, comment))
  }

  async deleteGroup(groupid: string): Promise<void> {
    await this.#state.change((world) => groupDeletion(world, groupid))
  }

  async acl(who: Identity): Promise<AclEntry[]> {
    return directory.aclItems(await this.#state.read(), await this.#answers(), who.authId)
  }

  /** Gives or takes roles; whoever lacks `Permissions.Modify` there gives no more than he holds. */
  async changeAcl(who: Identity, grant: Grant): Promise<void> {
    const path = requireAclPath(grant.path)
    await this.#state.change((world) => grantWrites(world, grant, this.#answersFor(world).on(who.authId, path)))
  }

  #newSecret(): string {
    return this.#needs.random.uuid().toLowerCase()
  }

  async #answers(): Promise<Permissions> {
    return this.#answersFor(await this.#state.read())
  }

  #answersFor(world: World): Permissions {
    if (this.#permissions?.world !== world) {
      this.#permissions = { world, answers: new Permissions(world) }
    }
    return this.#permissions.answers
  }

  async #holdsAll(userid: string, path: string, privileges: readonly string[]): Promise<boolean> {
    const held = await this.privilegesOn(userIdentity(userid), path)
    return privileges.length > 0 && privileges.every((privilege) => held.has(privilege))
  }

  async #hashFor(userid: string, password: string): Promise<string> {
    const realm = splitUserId(userid)?.realm
    if (realm === 'pve') return await this.#pve.hash(password)
    throw invalid({ password: `can't set password on auth type '${realm}'; the system's own tools (passwd) do` })
  }
}

function onePath(answers: Permissions, userid: string, text: string): ReadonlyMap<string, Privileges> {
  const path = requireAclPath(text)
  return new Map([[path, answers.on(userid, path)]])
}

function asNumbers(privileges: Privileges): Record<string, 0 | 1> {
  return Object.fromEntries([...privileges].map(([privilege, propagates]) => [privilege, propagates ? 1 : 0]))
}
