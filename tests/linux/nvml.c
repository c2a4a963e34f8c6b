/* A stand-in for NVIDIA's libnvidia-ml.so.1, so that the real nvidia-ml-py runs where there is no GPU.
 *
 * Two GPUs. The first: pid 1 holds 61 GiB of 80, two uncorrected ECC errors. The second answers as the
 * driver does for one that has fallen off the bus. Compiled with -DHANGS its nvmlInit never returns.
 * Structures and numbers as in nvml.h (12.x): nvmlReturn_t 0 success, 3 not supported, 7 insufficient size, 15 lost.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_t;

static int first, second;
static int lost(void *device) { return device == &second; }

int nvmlInitWithFlags(unsigned flags) {
#ifdef HANGS
    for (;;) pause();
#endif
    return 0;
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "not supported"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = index ? &second : &first; return 0; }

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    if (lost(device)) return 15;
    snprintf(uuid, length, "GPU-b850f46d-d5ea-c752-ddf3-c4453e44d3f7");
    return 0;
}

int nvmlDeviceGetPciInfo_v3(void *device, pci_t *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%s", lost(device) ? "00000000:5E:00.0" : "00000000:3B:00.0");
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    if (lost(device)) return 15;
    *memory = (memory_t){80ULL << 30, 19ULL << 30, 61ULL << 30};
    return 0;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count) {
    if (lost(device)) return 15;
    *count = type == 1 && counter == 0 ? 2 : 99; /* uncorrected, volatile */
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
    if (lost(device)) return 15;
    if (processes == NULL || *count < 1) { *count = 1; return 7; }
    processes[0] = (process_t){1, 61ULL << 30, -1, -1};
    *count = 1;
    return 0;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
    return lost(device) ? 15 : 3;
}
