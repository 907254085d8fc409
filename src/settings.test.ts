import assert from 'node:assert/strict'
import { test } from 'node:test'
import { settingsFrom, settingsToEnv } from './settings.ts'

test('what a process of the same node is handed says the same', () => {
  const env = {
    HAKO_INSTANCE: 'lab',
    HAKO_FETCH_NETWORKS: '127.0.0.1, !10.0.0.0/8',
    HAKO_TEMPLATE_INDEX: 'https://example.org/templates.dat.gz',
    HAKO_TEMPLATE_KEYRING: '/etc/hakobune/templates.gpg',
  }
  const settings = settingsFrom(env)
  assert.deepEqual(settings.fetchNetworks, ['127.0.0.1', '!10.0.0.0/8'])
  assert.deepEqual(settings.templateIndex, { url: env.HAKO_TEMPLATE_INDEX, keyring: env.HAKO_TEMPLATE_KEYRING })
  assert.deepEqual(settingsFrom(settingsToEnv(settings)), settings)
  assert.deepEqual(settingsFrom(settingsToEnv(settingsFrom({}))), settingsFrom({}))
})

test('a variable that means nothing is named', () => {
  for (const [name, env] of [
    ['HAKO_FETCH_NETWORKS', { HAKO_FETCH_NETWORKS: 'the lan' }],
    ['HAKO_SPICE_PORT', { HAKO_SPICE_PORT: 'on' }],
    ['HAKO_SPICE_PORT', { HAKO_SPICE_PORT: '65536' }],
    ['HAKO_TEMPLATE_INDEX', { HAKO_TEMPLATE_INDEX: 'ftp://example.org/x' }],
    ['HAKO_TEMPLATE_KEYRING', { HAKO_TEMPLATE_INDEX: 'https://example.org/x' }],
  ] as const) {
    assert.throws(() => settingsFrom(env), new RegExp(`^Fault: ${name} is '`), name)
  }
})

test('viewers by SPICE know one port: the installed node has it, others what they are told', () => {
  const port = (env: Record<string, string>) => settingsFrom(env).spicePort
  assert.equal(port({}), 3128)
  assert.equal(port({ HAKO_SPICE_PORT: 'off' }), undefined)
  assert.equal(port({ HAKO_INSTANCE: 'lab' }), undefined)
  assert.equal(port({ HAKO_INSTANCE: 'lab', HAKO_SPICE_PORT: '0' }), 0)
  assert.equal(settingsFrom(settingsToEnv(settingsFrom({ HAKO_SPICE_PORT: 'off' }))).spicePort, undefined)
})
