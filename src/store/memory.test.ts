import { storeConformance } from './conformance.ts'
import { MemoryWorld, openMemoryStore } from './memory.ts'

storeConformance('memory', async () => {
  const world = new MemoryWorld()
  return { open: async (clock) => openMemoryStore(world, { clock }), [Symbol.asyncDispose]: async () => {} }
})
