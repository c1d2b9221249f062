/* Preload library that sets the wall clock ahead: by CLOCK_AHEAD_S seconds, from the environment, or
 * by the seconds in the file CLOCK_AHEAD_FILE, which may change. */

#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long ahead_s(void) {
  const char *ahead = getenv("CLOCK_AHEAD_S");
  const char *path = getenv("CLOCK_AHEAD_FILE");
  char text[32] = "";
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return ahead == NULL ? 0 : atol(ahead);
  ssize_t len = read(file, text, sizeof text - 1);
  close(file);
  return len > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && clock == CLOCK_REALTIME)
    now->tv_sec += ahead_s();
  return result;
}
