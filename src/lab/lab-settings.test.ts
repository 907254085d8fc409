import assert from 'node:assert/strict'
import { test } from 'node:test'
import { labSettings } from './lab-settings.ts'

test('a path of another node in the environment does not move the lab', () => {
  const lab = labSettings({
    HAKO_RUN_DIR: '/run/hakobune/site',
    HAKO_STATE_DIR: '/var/lib/hakobune/site',
    HAKO_API_PORT: '18006',
  })
  assert.equal(lab.runDir, '/run/hakobune/lab')
  assert.equal(lab.stateDir, '/var/lib/hakobune/lab')
  assert.equal(lab.apiPort, 18_006)
})

test('a lab under an instance of its own takes all its names from the environment', () => {
  const lab = labSettings({ HAKO_INSTANCE: 'lab2', HAKO_STATE_DIR: '/srv/lab2' })
  assert.deepEqual([lab.instance, lab.stateDir], ['lab2', '/srv/lab2'])
  // What is not named is found by `hako --instance lab2`, and is not the first lab's.
  assert.deepEqual([lab.runDir, lab.cacheDir], ['/run/hakobune/lab2', '/var/cache/hakobune/lab2'])
})
