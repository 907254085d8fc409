/** The part of the drivers' contract about volumes that go, for good or for a while; see `conformance.ts`. */
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'

interface Leaving<Name> {
  readonly name: Name
  readonly part: {
    readonly remove: (name: Name) => Promise<boolean>
    readonly setAside: (name: Name, mark: string) => Promise<void>
    readonly bringBack: (name: Name, mark: string) => Promise<void>
    readonly erase: (name: Name, mark: string) => Promise<void>
  }
  readonly isListed: () => Promise<boolean>
  readonly content: () => Promise<Buffer>
}

export function leavingRules<Name>(what: string, make: (t: TestContext) => Promise<Leaving<Name>>): void {
  test(`a ${what} is removed once, and removing it again is no error`, async (t) => {
    const { part, name, isListed } = await make(t)
    assert.equal(await part.remove(name), true)
    assert.equal(await isListed(), false)
    assert.equal(await part.remove(name), false)
  })

  test(`a ${what} set aside is out of sight until it is brought back`, async (t) => {
    const { part, name, isListed, content } = await make(t)
    const before = await content()
    await part.setAside(name, 'one')
    await part.setAside(name, 'one')
    assert.equal(await isListed(), false)
    await assert.rejects(part.setAside(name, 'two'), /does not exist/)
    await part.bringBack(name, 'two')
    assert.equal(await isListed(), false)
    await part.bringBack(name, 'one')
    await part.bringBack(name, 'one')
    assert.equal(await isListed(), true)
    assert.ok(before.equals(await content()))
  })

  test(`a ${what} set aside can be erased for good`, async (t) => {
    const { part, name, isListed } = await make(t)
    await part.setAside(name, 'one')
    await part.erase(name, 'one')
    await part.erase(name, 'one')
    await part.bringBack(name, 'one')
    assert.equal(await isListed(), false)
  })
}
