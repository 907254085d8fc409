/** Everything below `/nodes/{node}/lxc`. */
import { cloneEndpoints } from './clone.ts'
import { configEndpoints } from './config.ts'
import { containerConsoleEndpoints } from './consoles.ts'
import { containerGuestEndpoints } from './guests.ts'
import { interfaceEndpoints } from './interfaces.ts'
import { containerSnapshotEndpoints } from './snapshots.ts'
import { statusEndpoints } from './status.ts'
import { volumeEndpoints } from './volumes.ts'

export const containerEndpoints = [
  ...containerGuestEndpoints,
  ...configEndpoints,
  ...statusEndpoints,
  ...interfaceEndpoints,
  ...volumeEndpoints,
  ...cloneEndpoints,
  ...containerSnapshotEndpoints,
  ...containerConsoleEndpoints,
]
