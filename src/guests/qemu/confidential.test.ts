import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { requireConfidential } from './confidential.ts'

test('what a machine lacks for memory it cannot read itself is named, one thing after the other', async () => {
  await using scope = new AsyncDisposableStack()
  const root = await mkdtemp(join(tmpdir(), 'hako-root-'))
  scope.defer(() => rm(root, { recursive: true }))
  const complaint = async (options: Record<string, string>) => {
    const [name = ''] = Object.keys(options)
    try {
      await requireConfidential(options, root)
    } catch (fault) {
      if (isFault(fault, 'invalid')) return fault.fields?.[name]
      throw fault
    }
    return undefined
  }
  const offer = async (module: string, parameter: string, text: string) => {
    await mkdir(join(root, 'sys/module', module, 'parameters'), { recursive: true })
    await writeFile(join(root, 'sys/module', module, 'parameters', parameter), text)
  }
  assert.equal(await complaint({ memory: '512' }), undefined)
  assert.match(String(await complaint({ 'amd-sev': 'std' })), /does not offer it \(kvm_amd, sev\)/)
  assert.match(String(await complaint({ 'amd-sev': 'type=snp' })), /does not offer it \(kvm_amd, sev_snp\)/)
  assert.match(String(await complaint({ 'intel-tdx': 'tdx' })), /does not offer it \(kvm_intel, tdx\)/)
  await offer('kvm_amd', 'sev_es', 'N\n')
  assert.match(String(await complaint({ 'amd-sev': 'es' })), /does not offer it \(kvm_amd, sev_es\)/)
  await offer('kvm_amd', 'sev_es', 'Y\n')
  assert.match(String(await complaint({ 'amd-sev': 'es' })), /this machine has no \/dev\/sev/)
  await mkdir(join(root, 'dev'))
  await writeFile(join(root, 'dev/sev'), '')
  assert.match(String(await complaint({ 'amd-sev': 'es,no-debug=1' })), /not supported by this release/)
})
