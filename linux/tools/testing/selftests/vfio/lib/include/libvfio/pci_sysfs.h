/* SPDX-License-Identifier: GPL-2.0 */
/*
 * PCI devices by way of sysfs.  Functions return 0 or a negative errno, unless they say
 * something else.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PCI_SYSFS_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PCI_SYSFS_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>

#define PCI_DEVICES	"/sys/bus/pci/devices"

/* An attribute that is a hexadecimal number; ULONG_MAX if it cannot be read */
unsigned long pci_read_hex(const char *bdf, const char *attr);
bool pci_present(const char *bdf);
int pci_bar(const char *bdf, int bar, u64 *start, u64 *size);
int pci_bind_vfio(const char *bdf);
bool pci_bound_to_vfio(const char *bdf);
int pci_unbind(const char *bdf);
/* Waits for runtime power management to suspend it */
bool pci_is_suspended(const char *bdf);
/* Path of the hot-plug slot that a device is in */
int pci_slot(const char *bdf, char *slot, size_t len);
/* A mapping of a BAR which has nothing to do with VFIO, or NULL */
void *pci_sysfs_map(const char *bdf, int bar, size_t size);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PCI_SYSFS_H */
