/** For the environment of programs of ours that a test starts: they load what Node has compiled, as the test itself does. */
export const compiled = { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? '' }
