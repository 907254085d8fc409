/** Proof of identity in headers, in every spelling clients use. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { csrfOf, demoAuthenticator, ticketOf } from '../../test/contract/demo.ts'
import { credentialsOf, identityFrom } from './session.ts'

const ticket = 'PVE:root@pam:6A000000::abc+/d=='

test('a ticket may be raw or escaped, alone or among other cookies', () => {
  const texts = [
    `PVEAuthCookie=${ticket}`,
    `PVEAuthCookie=${encodeURIComponent(ticket)}`,
    `lang=en; PVEAuthCookie=${ticket}; other=1`,
    `PVEAuthCookie=${ticket};version=0; path=/; domain=x`,
  ]
  for (const cookie of texts) assert.deepEqual(credentialsOf({ cookie }), { kind: 'ticket', text: ticket })
  assert.deepEqual(credentialsOf({ authorization: `PVEAuthCookie=${ticket}` }), { kind: 'ticket', text: ticket })
})

test('a cookie with a similar name is no ticket', () => {
  assert.equal(credentialsOf({ cookie: `XPVEAuthCookie=${ticket}` }), undefined)
  assert.equal(credentialsOf({ cookie: 'PVEAuthCookie=' }), undefined)
})

test('a token may be separated by = or a space', () => {
  const token = 'root@pam!ci=0a0b0c0d-0000-0000-0000-000000000000'
  for (const authorization of [`PVEAPIToken=${token}`, `PVEAPIToken ${token}`]) {
    assert.deepEqual(credentialsOf({ authorization }), { kind: 'token', text: token })
  }
  for (const authorization of ['Basic abc', 'Bearer x', 'PVEAPIToken', '']) {
    assert.equal(credentialsOf({ authorization }), undefined)
  }
})

test('the cookie comes before the token', () => {
  const both = { cookie: `PVEAuthCookie=${ticket}`, authorization: 'PVEAPIToken=a@pve!b=c' }
  assert.equal(credentialsOf(both)?.kind, 'ticket')
})

test('a ticket that changes something needs the CSRF token, an upload and an API token do not', async () => {
  const cookie = `PVEAuthCookie=${ticketOf('ann@pve')}`
  const by = (method: string, headers: Record<string, string>, isUpload = false) =>
    identityFrom({ headers, method, isUpload }, demoAuthenticator)
  assert.equal((await by('GET', { cookie }))?.user, 'ann@pve')
  assert.equal((await by('POST', { cookie, csrfpreventiontoken: csrfOf('ann@pve') }))?.user, 'ann@pve')
  assert.equal((await by('POST', { cookie }, true))?.user, 'ann@pve')
  assert.equal((await by('DELETE', { authorization: 'PVEAPIToken=root@pam!ci=letmein' }))?.authId, 'root@pam!ci')
  assert.equal(await by('DELETE', {}), undefined)
  for (const csrf of [{}, { csrfpreventiontoken: 'x' }, { csrfpreventiontoken: csrfOf('bob@pve') }]) {
    for (const method of ['POST', 'PUT', 'DELETE']) {
      await assert.rejects(
        by(method, { cookie, ...csrf }),
        (error) => isFault(error, 'unauthenticated') && error.message === 'Permission denied - invalid csrf token',
      )
    }
  }
})
