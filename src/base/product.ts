/** What this is called and which version it is, from the package's own file. */
import manifest from '../../package.json' with { type: 'json' }

export const productName = 'Hakobune'
export const productVersion: string = manifest.version
