/** A realm: somebody who can say whether a password is a user's. Nothing else is asked of it at a login. */
export interface Realm {
  readonly name: string
  /**
   * Whether it may be asked about users who may not log in anyhow, so that an answer takes its time for them
   * too. The system may not: it would count the question against an account of its own.
   */
  readonly answersForStrangers: boolean
  /**
   * Whether this is the password of that user. Takes as long for a user it does not know.
   * @param name without the realm
   * @throws Fault `unavailable` when the question cannot be asked at all
   */
  readonly verify: (name: string, password: string) => Promise<boolean>
}
