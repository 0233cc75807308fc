// Asking again and again, but only while somebody looks: nothing is asked while the tab is hidden or another part is shown.

const PAUSE_MAX_MILLIS = 30_000;

/**
 * Runs `work` every `millis`, one at a time, while `wanted()`. What fails is tried again after longer and longer pauses, and
 * `failed(error)` says whether to go on.
 */
export function poll(millis, wanted, work, failed) {
  let timer = null;
  let running = false;
  let again = false;
  let pause = millis;

  async function run() {
    clearTimeout(timer);
    timer = null;
    if (running) {
      again = true;
      return;
    }
    if (document.hidden || !wanted()) {
      return;
    }
    running = true;
    let goesOn = true;
    try {
      await work();
      pause = millis;
    } catch (error) {
      pause = Math.min(pause * 2, PAUSE_MAX_MILLIS);
      goesOn = failed(error);
    }
    running = false;
    if (again) {
      again = false;
      await run();
    } else if (goesOn) {
      timer = setTimeout(run, pause);
    }
  }

  document.addEventListener("visibilitychange", run);
  /** Has it asked now, and go on. */
  return run;
}
