/** Everything below `/nodes/{node}/qemu`. */
import { agentFileEndpoints } from './agent-files.ts'
import { agentEndpoints } from './agent.ts'
import { cloudInitEndpoints } from './cloudinit.ts'
import { cloneEndpoints } from './clone.ts'
import { configEndpoints } from './config.ts'
import { guestConsoleEndpoints } from './consoles.ts'
import { diskEndpoints } from './disks.ts'
import { guestEndpoints } from './guests.ts'
import { monitorEndpoints } from './monitor.ts'
import { snapshotEndpoints } from './snapshots.ts'
import { statusEndpoints } from './status.ts'

export const qemuEndpoints = [
  ...guestEndpoints,
  ...configEndpoints,
  ...statusEndpoints,
  ...diskEndpoints,
  ...snapshotEndpoints,
  ...cloneEndpoints,
  ...cloudInitEndpoints,
  ...monitorEndpoints,
  ...guestConsoleEndpoints,
  ...agentEndpoints,
  ...agentFileEndpoints,
]
