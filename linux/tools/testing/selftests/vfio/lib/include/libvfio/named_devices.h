/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The devices that the user has named for a test.  It takes no others: an emulated device
 * cannot be told from a real one, not by its ID and not because there is a hypervisor, and
 * the machine may need it.
 *
 * They are named as arguments of the program, or in VFIO_SELFTESTS_BDF, separated by blanks.
 * Of these a test takes the ones that it knows.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_NAMED_DEVICES_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_NAMED_DEVICES_H

#include <stdbool.h>

#include <linux/types.h>

#define BDF_LEN		32

/* Why a test skips that has not found its devices */
#define DEVICES_ENV	"VFIO_SELFTESTS_BDF"
#define NEEDS(devices)	"needs " devices " among " DEVICES_ENV

/* Which emulated device a test asks for: one of several kinds, in a BAR of theirs */
struct pci_kind {
	u32 id;			/* vendor << 16 | device */
	int bar;
};

struct pci_want {
	struct pci_kind kind[2];
	u64 min_size;		/* of the BAR */
	bool behind_port;	/* has a slot of its own, so it can be reset and unplugged */
};

extern const struct pci_want want_edu;		/* DMA engine; BAR 0: registers */
extern const struct pci_want want_edu_slot;	/* the same, in a slot */
extern const struct pci_want want_mem;		/* a BAR with memory: ivshmem, bochs-display */
extern const struct pci_want want_mem_slot;	/* the same, in a slot */
extern const struct pci_want want_mem_1g;	/* at least 1 GiB of it */
extern const struct pci_want want_shm;		/* ivshmem; BAR 2: memory */
extern const struct pci_want want_testdev;	/* pci-testdev; BAR 0: registers; in a slot */
extern const struct pci_want want_e1000e;	/* BARs 0, 1 and 3; function level reset */
extern const struct pci_want want_nvme;		/* with memory: BAR 2 */
extern const struct pci_want want_nvme_pf;	/* registers of any NVMe controller: BAR 0 */

/*
 * To be called by main() before any test is run.  Records the state of each device, and forks
 * a process that puts it back (driver, driver_override, NUMA node, power) when the program
 * and its children have ended, in whichever way.  Exits if the devices are not to be had.
 */
void named_devices_init(int argc, char **argv);

/* Finds the @nth such device, in the order of addresses.  Returns its BAR, or -ENODEV */
int pci_find(const struct pci_want *want, unsigned int nth, char *bdf);

/* Is it among the arguments of the program, or are there none but devices? */
bool asked_for(const char *name, int argc, char **argv);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_NAMED_DEVICES_H */
