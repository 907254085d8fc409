/** Challenges a user has open: each is good once, for ten minutes, for one purpose. */
import type { Random } from '#base/random.ts'
import { accessLimits } from '../limits.ts'
import type { Challenge, Held } from './held.ts'

const { challengeSeconds, challengesOpen } = accessLimits.tfa

/** Base64url, as browsers write it. */
export function newChallenge(random: Random): string {
  return Buffer.from(random.bytes(32)).toString('base64url')
}

/** The oldest one gives way when there are too many. */
export function withChallenge(held: Held, text: string, purpose: Challenge['purpose'], nowSeconds: number): Held {
  const open = held.challenges.filter(({ until }) => until > nowSeconds)
  const made = { text, purpose, until: nowSeconds + challengeSeconds }
  return { ...held, challenges: [...open, made].slice(-challengesOpen) }
}

/** Without it, or nothing when it is not open for that purpose. */
export function withoutChallenge(
  held: Held,
  text: string,
  purpose: Challenge['purpose'],
  nowSeconds: number,
): Held | undefined {
  const found = held.challenges.find((one) => one.text === text && one.purpose === purpose && one.until > nowSeconds)
  return found && { ...held, challenges: held.challenges.filter((one) => one !== found) }
}
