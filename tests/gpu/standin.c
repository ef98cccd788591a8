/* A stand-in for libnvidia-ml.so.1 on machines without a driver, for tests and for the benchmark.
 *
 * It has NVML's names, argument lists, structures and error codes, and says what the file `<this library>.script` tells it
 * to. The file is read again whenever it changed, so a test can lose a device and bring it back. Lines:
 *
 *   count N              devices
 *   init CODE            nvmlInit_v2 returns this
 *   handle DEV CODE      so does opening the device
 *   fail NAME CODE       so does the function (util memory power temperature clock throttle ecc pcie list sm events)
 *   lost DEV             every question about the device returns NVML_ERROR_GPU_IS_LOST
 *   util DEV GPU MEM     percent
 *   memory DEV USED TOTAL  bytes
 *   proc DEV PID BYTES SM  a process; BYTES -1 = unknown, SM -1 = it did nothing
 *   xid DEV NUMBER SERIAL  an event, delivered once per SERIAL
 *   mig DEV INSTANCES    MIG is on, with so many instances
 *   hang                 nvmlInit_v2 never returns
 *
 * -DOLD leaves out what drivers before 510 lack, -DBARE all but the names, -DNO_INIT nvmlInit_v2 itself. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int ret;
typedef struct device *handle;
typedef unsigned long long u64;

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10, LOST = 15 };
enum { DEVICES = 16, PROCESSES = 16 };

static const char *const NAMES[] = {"util", "memory", "power", "temperature", "clock", "throttle",
                                    "ecc",  "pcie",   "list",  "sm",          "events"};
enum { UTIL, MEMORY, POWER, TEMPERATURE, CLOCK, THROTTLE, ECC, PCIE, LIST, SM, EVENTS, FUNCTIONS };

static struct script {
    unsigned count;
    int init, hang, fail[FUNCTIONS], handle[DEVICES], lost[DEVICES], mig[DEVICES];
    unsigned gpu[DEVICES], mem[DEVICES];
    u64 used[DEVICES], total[DEVICES];
    struct { unsigned pid; long long bytes; int sm; } proc[DEVICES][PROCESSES];
    unsigned procs[DEVICES];
    u64 xid[DEVICES], serial[DEVICES];
} script;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized;
static u64 delivered[DEVICES] __attribute__((unused));

static void load(void) {
    static struct timespec read_at;
    static ino_t inode_then;
    char path[4096];
    Dl_info self;
    struct stat now;
    if (!dladdr((void *)load, &self)) return;
    snprintf(path, sizeof path, "%s.script", self.dli_fname);
    if (stat(path, &now)) return;
    pthread_mutex_lock(&lock);
    /* A script is replaced by renaming, perhaps within one tick of the file system's clock. */
    if (now.st_ino != inode_then || memcmp(&now.st_mtim, &read_at, sizeof read_at)) {
        inode_then = now.st_ino;
        read_at = now.st_mtim;
        struct script s = {.count = 1};
        for (int i = 0; i < DEVICES; i++) s.total[i] = 16ull << 30;
        FILE *f = fopen(path, "r");
        char line[256], word[32];
        while (f && fgets(line, sizeof line, f)) {
            unsigned d = 0, a = 0, b = 0;
            int code = 0;
            long long n = 0, m = 0;
            if (sscanf(line, "count %u", &a) == 1) s.count = a < DEVICES ? a : DEVICES;
            else if (sscanf(line, "init %d", &code) == 1) s.init = code;
            else if (!strncmp(line, "hang", 4)) s.hang = 1;
            else if (sscanf(line, "fail %31s %d", word, &code) == 2) {
                for (int i = 0; i < FUNCTIONS; i++) if (!strcmp(word, NAMES[i])) s.fail[i] = code;
            }
            else if (sscanf(line, "handle %u %d", &d, &code) == 2 && d < DEVICES) s.handle[d] = code;
            else if (sscanf(line, "lost %u", &d) == 1 && d < DEVICES) s.lost[d] = 1;
            else if (sscanf(line, "util %u %u %u", &d, &a, &b) == 3 && d < DEVICES) s.gpu[d] = a, s.mem[d] = b;
            else if (sscanf(line, "memory %u %lld %lld", &d, &n, &m) == 3 && d < DEVICES) s.used[d] = n, s.total[d] = m;
            else if (sscanf(line, "proc %u %u %lld %d", &d, &a, &n, &code) == 4 && d < DEVICES && s.procs[d] < PROCESSES) {
                unsigned i = s.procs[d]++;
                s.proc[d][i].pid = a, s.proc[d][i].bytes = n, s.proc[d][i].sm = code;
            }
            else if (sscanf(line, "xid %u %lld %lld", &d, &n, &m) == 3 && d < DEVICES) s.xid[d] = n, s.serial[d] = m;
            else if (sscanf(line, "mig %u %d", &d, &code) == 2 && d < DEVICES) s.mig[d] = code;
        }
        if (f) fclose(f);
        script = s;
    }
    pthread_mutex_unlock(&lock);
}

/* A device's handle is its number + 1, that of its instance J 1000 * (J + 1) more. */
static unsigned number(handle h) { return (unsigned)((size_t)h % 1000) - 1; }
static int instance(handle h) { return (int)((size_t)h / 1000) - 1; }

static ret asked(handle h, int function) {
    if (!initialized) return UNINITIALIZED;
    unsigned d = number(h);
    if (d >= script.count) return INVALID;
    if (script.lost[d]) return LOST;
    return function >= 0 ? script.fail[function] : OK;
}

#ifndef NO_INIT
ret nvmlInit_v2(void) {
    load();
    while (script.hang) sleep(1000);
    initialized = script.init == OK;
    return script.init;
}
#endif
ret nvmlShutdown(void) { initialized = 0; return OK; }
ret nvmlDeviceGetCount_v2(unsigned *n) { *n = script.count; return initialized ? OK : UNINITIALIZED; }
ret nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "550.1-standin"); return OK; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned d, handle *h) {
    load();
    if (!initialized) return UNINITIALIZED;
    if (d >= script.count) return INVALID;
    *h = (handle)(size_t)(d + 1);
    return script.lost[d] ? LOST : script.handle[d];
}
ret nvmlDeviceGetIndex(handle h, unsigned *d) { *d = number(h); return asked(h, -1); }
ret nvmlDeviceGetName(handle h, char *text, unsigned size) {
    snprintf(text, size, instance(h) < 0 ? "Stand-in GPU" : "Stand-in GPU MIG 1g.5gb");
    return asked(h, -1);
}
ret nvmlDeviceGetUUID(handle h, char *text, unsigned size) {
    if (instance(h) < 0) snprintf(text, size, "GPU-standin-%u", number(h));
    else snprintf(text, size, "MIG-standin-%u-%d", number(h), instance(h));
    return asked(h, -1);
}

#ifndef BARE
struct memory { u64 total, free, used; };
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };
struct utilization { unsigned gpu, memory; };
struct process { unsigned pid; u64 bytes; unsigned gi, ci; };
struct sample { unsigned pid; u64 time; unsigned sm, mem, enc, dec; };
struct event { handle device; u64 type, data; unsigned gi, ci; };

ret nvmlDeviceGetMemoryInfo(handle h, struct memory *m) {
    unsigned d = number(h);
    m->total = script.total[d], m->used = script.used[d], m->free = m->total - m->used;
    return asked(h, MEMORY);
}
ret nvmlDeviceGetUtilizationRates(handle h, struct utilization *u) {
    u->gpu = script.gpu[number(h)], u->memory = script.mem[number(h)];
    return instance(h) < 0 ? asked(h, UTIL) : UNSUPPORTED;
}
ret nvmlDeviceGetPowerUsage(handle h, unsigned *mw) { *mw = 123456; return asked(h, POWER); }
ret nvmlDeviceGetTemperature(handle h, int sensor, unsigned *c) { *c = 61 + sensor; return asked(h, TEMPERATURE); }
ret nvmlDeviceGetClockInfo(handle h, int kind, unsigned *mhz) { *mhz = 1000 + kind; return asked(h, CLOCK); }
ret nvmlDeviceGetCurrentClocksThrottleReasons(handle h, u64 *bits) { *bits = 0x44; return asked(h, THROTTLE); }
ret nvmlDeviceGetTotalEccErrors(handle h, int kind, int counter, u64 *n) { *n = 7 + kind + counter; return asked(h, ECC); }
ret nvmlDeviceGetPcieThroughput(handle h, int way, unsigned *kbs) { *kbs = 500 + way; return asked(h, PCIE); }
ret nvmlDeviceGetMigMode(handle h, unsigned *now, unsigned *then) {
    *now = *then = script.mig[number(h)] > 0;
    return instance(h) < 0 ? asked(h, -1) : UNSUPPORTED;
}
ret nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *n) { *n = 7; return asked(h, -1); }
ret nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned i, handle *out) {
    if ((int)i >= script.mig[number(h)]) return NOT_FOUND;
    *out = (handle)((size_t)h + 1000 * (i + 1));
    return asked(h, -1);
}

static ret list(handle h, unsigned *n, struct process *out) {
    unsigned d = number(h), room = *n;
    ret r = asked(h, LIST);
    if (r) return r;
    *n = script.procs[d];
    if (!*n) return OK;
    if (!out || room < *n) return TOO_SMALL;
    for (unsigned i = 0; i < *n; i++)
        out[i] = (struct process){script.proc[d][i].pid, (u64)script.proc[d][i].bytes, ~0u, ~0u};
    return OK;
}
ret nvmlDeviceGetComputeRunningProcesses_v2(handle h, unsigned *n, struct process *out) { return list(h, n, out); }

#ifndef OLD
ret nvmlDeviceGetMemoryInfo_v2(handle h, struct memory_v2 *m) {
    unsigned d = number(h);
    if (m->version != (sizeof *m | 2u << 24)) return INVALID;
    m->total = script.total[d], m->used = script.used[d], m->reserved = 0, m->free = m->total - m->used;
    return asked(h, MEMORY);
}
ret nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *n, struct process *out) { return list(h, n, out); }
ret nvmlDeviceGetProcessUtilization(handle h, struct sample *out, unsigned *n, u64 since) {
    unsigned d = number(h), busy = 0, room = *n;
    ret r = asked(h, SM);
    if (r) return r;
    for (unsigned i = 0; i < script.procs[d]; i++) {
        if (script.proc[d][i].sm < 0) continue;
        if (out && busy < room)
            out[busy] = (struct sample){script.proc[d][i].pid, since + 1, (unsigned)script.proc[d][i].sm, 0, 0, 0};
        busy++;
    }
    *n = busy;
    if (!busy) return NOT_FOUND;
    return !out || room < busy ? TOO_SMALL : OK;
}
ret nvmlEventSetCreate(void **set) { *set = &script; return OK; }
ret nvmlEventSetFree(void *set) { return set == &script ? OK : INVALID; }
ret nvmlDeviceGetSupportedEventTypes(handle h, u64 *types) { *types = 8; return asked(h, EVENTS); }
ret nvmlDeviceRegisterEvents(handle h, u64 types, void *set) {
    unsigned d = number(h);
    if (types != 8 || set != &script) return INVALID;
    delivered[d] = script.serial[d];
    return asked(h, -1);
}
ret nvmlEventSetWait_v2(void *set, struct event *e, unsigned ms) {
    if (set != &script || ms) return INVALID;
    for (unsigned d = 0; d < script.count; d++) {
        if (delivered[d] >= script.serial[d]) continue;
        delivered[d] = script.serial[d];
        *e = (struct event){(handle)(size_t)(d + 1), 8, script.xid[d], 0, 0};
        return OK;
    }
    return TIMEOUT;
}
#endif
#endif
