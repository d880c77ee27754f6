/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Device A, an edu, does DMA through a container; BAR @bar of device B is where
 * it may land.  p2p_open() finds both and opens A; a test opens B when it wants.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_P2P_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_P2P_H

#include <stddef.h>

#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/dma_map.h>
#include <libvfio/iommu_tables.h>
#include <libvfio/named_devices.h>
#include <libvfio/pci_sysfs.h>
#include <libvfio/system.h>
#include <libvfio/vfio_pci_open.h>

#define IOVA_SCRATCH	0x10000000UL
#define IOVA_BAR	0x40000000UL

struct p2p {
	struct iommu *iommu;
	struct vfio_pci_device *a;
	struct vfio_pci_device *b;
	char bdf_a[BDF_LEN];
	char bdf_b[BDF_LEN];
	struct dma_region memory;
	void *scratch;		/* a page of it, at IOVA_SCRATCH */
	void *window;		/* the first 1 MiB of B's BAR by way of sysfs */
	int bar;
	u64 phys;		/* of B's BAR */
	u64 size;
};

int p2p_open(struct p2p *p, const struct pci_want *want_b);
int p2p_open_mode(struct p2p *p, const struct pci_want *want_b, const char *mode);
int p2p_open_peer(struct p2p *p);
int p2p_open_peer_in(struct p2p *p, struct iommu *iommu);
int p2p_open_window(struct p2p *p);
/* Close A, and the container */
void p2p_close_mapper(struct p2p *p);
void *p2p_bar(struct p2p *p, size_t offset, size_t size);
/* Give B up: the mmap of its BAR, and the device */
void p2p_release(struct p2p *p, void *bar, size_t size);
void p2p_close(struct p2p *p);
/* Have A write @val to @iova */
int p2p_store(struct p2p *p, u64 iova, u32 val);
/* Does A's write to @iova reach @offset of B's BAR?  1, 0, or negative: unknown */
int p2p_lands(struct p2p *p, u64 iova, size_t offset);

/*
 * Ordinary memory.  p2p_agrees() writes to SPAN bytes at @ram, has A copy the first half of
 * them to the second at @iova, and looks at what is there: does A see what the process
 * writes, and the process what A writes?  1, 0 after saying what is not so, or negative:
 * unknown.  p2p_reads() asks for no more than that A reads what the process writes there,
 * p2p_still_reads() whether it reads what is said to be there.
 */
#define SPAN		SZ_2K

int p2p_agrees(struct p2p *p, u64 iova, void *ram);
int p2p_reads(struct p2p *p, u64 iova, void *ram);
int p2p_still_reads(struct p2p *p, u64 iova, u8 byte);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_P2P_H */
