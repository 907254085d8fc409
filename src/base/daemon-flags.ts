/**
 * What Node is told when it runs the daemon.
 *
 * Its objects are small and either short-lived or kept for good, so a small nursery collects as well as a large one
 * and is worth 38 MiB with 1,000 guests: 2 MiB instead of 16, of which V8 has three.
 */
export const daemonFlags = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=2'] as const
