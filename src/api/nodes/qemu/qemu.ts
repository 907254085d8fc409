/** Everything below `/nodes/{node}/qemu`. */
import { agentFileEndpoints } from './agent-files.ts'
import { agentEndpoints } from './agent.ts'
import { configEndpoints } from './config.ts'
import { guestEndpoints } from './guests.ts'
import { statusEndpoints } from './status.ts'

export const qemuEndpoints = [
  ...guestEndpoints,
  ...configEndpoints,
  ...statusEndpoints,
  ...agentEndpoints,
  ...agentFileEndpoints,
]
