/** Bounds of access: how much is remembered, how often something may be tried, how long it holds. */
export const accessLimits = {
  /** How often a change is decided again because another one came first. */
  changeAttempts: 16,
  /** Answers of "which privileges on which path" kept per state of the world. */
  cachedAnswers: 50_000,
  /** Signatures of tickets found good, kept per set of keys. */
  rememberedSignatures: 10_000,
  ticket: { lifetimeSeconds: 2 * 3600, graceSeconds: 300, textLength: 1024, keyLifetimeMs: 24 * 3600 * 1000 },
  /** A console is opened at once or not at all. */
  consoleTicket: { lifetimeSeconds: 40, textLength: 512 },
  login: {
    /** A refusal takes this long from the request's start, whatever its reason. */
    refusalMs: 3_000,
    passwordLength: 4096,
    /** Password checks that run, and that wait, at one time: each takes 64 MiB. */
    checksAtOnce: 2,
    checksWaiting: 64,
    pamTimeoutMs: 30_000,
    /** Failed logins in a row, and how long until one more is allowed. */
    perUser: { burst: 10, everyMs: 30_000 },
    perAddress: { burst: 30, everyMs: 10_000 },
    /** Users and addresses remembered each. */
    remembered: 10_000,
  },
  /** Log-ins through a provider that have begun, and how often providers are asked. */
  openid: {
    attempts: 4096,
    attemptsPerAddress: 256,
    attemptSeconds: 600,
    /** How long what a provider says of itself holds, and that it could not be asked. */
    providerSeconds: 300,
    failureSeconds: 5,
    asksAtOnce: 8,
    asksWaiting: 64,
    groups: 1000,
  },
  tfa: {
    entriesPerUser: 16,
    changeAttempts: 64,
    /** Codes of the step before and after the present one hold too: clocks differ, and people type slowly. */
    totp: {
      windowSteps: 1,
      secretBytes: { minimum: 10, maximum: 128 },
      digits: { minimum: 6, maximum: 8 },
      periodSeconds: { minimum: 10, maximum: 120 },
    },
    recoveryCodes: 10,
    /** Failures in a row, after which nothing is accepted for a while. */
    failures: 5,
    lockSeconds: 15 * 60,
    /** Wrong one-time passwords in a row, after which those are refused until another factor or an administrator helps. */
    totpFailures: 20,
    /** How long the second step may take. */
    challengeSeconds: 600,
    /** Challenges of WebAuthn a user may have open. */
    challengesOpen: 8,
    ticketLength: 24 * 1024,
  },
} as const
