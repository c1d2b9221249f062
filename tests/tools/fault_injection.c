/* Preload library that injects a fault while a file of its name exists in the directory named by
   the environment variable FAULT_DIRECTORY: "stuck" blocks the thread worker-0, "sync" fails every
   fdatasync. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

static int is_injected(const char *name) {
  const char *directory = getenv("FAULT_DIRECTORY");
  char path[4096];
  if (directory == NULL)
    return 0;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return access(path, F_OK) == 0;
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
  int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
  char name[16] = "";
  prctl(PR_GET_NAME, name);
  while (strcmp(name, "worker-0") == 0 && is_injected("stuck"))
    usleep(10000);
  return real(epoll, events, count, timeout);
}

int fdatasync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
  if (is_injected("sync")) {
    errno = EIO;
    return -1;
  }
  return real(file);
}
