/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of device memory that is mapped for DMA need beyond libvfio.
 *
 * A test takes devices that the user has named, and no others: as arguments of the program,
 * or in VFIO_SELFTESTS_BDF, separated by blanks.  Of these it takes the ones that it knows.
 * An emulated device cannot be told from a real one, not by its ID and not because there is
 * a hypervisor, and the machine may need it.  Before main() the state of each is recorded,
 * and a process is forked that puts it back (driver, driver_override, NUMA node, power) when
 * the program has ended in whichever way.
 *
 * The peer that does the DMA is QEMU's "edu" device, the memory it writes to is
 * a BAR of another emulated device.  Functions return 0 or a positive value for
 * success and a negative errno otherwise, unless they say something else.  libvfio's
 * end the process when they fail, and with it the test.
 */
#ifndef SELFTESTS_VFIO_UTIL_H
#define SELFTESTS_VFIO_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>

#define BDF_LEN		32

#define DMA_RW		(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)
#define DMA_RO		VFIO_DMA_MAP_FLAG_READ
#define DMA_WO		VFIO_DMA_MAP_FLAG_WRITE

/* Which emulated device a test asks for: one of several kinds, in a BAR of theirs */
struct pci_kind {
	uint32_t id;		/* vendor << 16 | device */
	int bar;
};

struct pci_want {
	struct pci_kind kind[2];
	uint64_t min_size;	/* of the BAR */
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

/* Write to an existing file, such as one of sysfs, and read one as a string */
int write_text(const char *path, const char *text);
int read_text(const char *path, char *buf, size_t len);

/* Why a test skips that has not found its devices */
#define DEVICES_ENV	"VFIO_SELFTESTS_BDF"
#define NEEDS(devices)	"needs " devices " among " DEVICES_ENV

/* PCI devices by way of sysfs */
/* Finds the @nth such device that the user has named, in the order of addresses: its BAR */
int pci_find(const struct pci_want *want, unsigned int nth, char *bdf);
int pci_bind_vfio(const char *bdf);
bool pci_bound_to_vfio(const char *bdf);
int pci_unbind(const char *bdf);
bool pci_present(const char *bdf);
/* Waits for runtime power management to suspend it */
bool pci_is_suspended(const char *bdf);
int pci_bar(const char *bdf, int bar, uint64_t *start, uint64_t *size);
int pci_slot(const char *bdf, char *slot, size_t len);
void *pci_sysfs_map(const char *bdf, int bar, size_t size);

/*
 * How long to wait for a group, in milliseconds, that another process has: the
 * last test's children may still be about to exit.
 */
extern int group_patience_ms;

int group_open(const char *bdf);
int group_attach(struct vfio_pci_device *dev);
int group_detach(const struct vfio_pci_device *dev);

/*
 * vfio_pci_device_init() opens all there is of a device and maps every BAR, and
 * vfio_pci_device_cleanup() insists on finding it so.  Where it matters what of a
 * device is open, and what goes first, tests use these.  @bdf has to last as long as the
 * device.  An fd that is closed is -1, a device that is closed is NULL.
 */
struct vfio_pci_device *dev_alloc(const char *bdf, struct iommu *iommu);
/* Bind it to vfio-pci and wait for its group.  Then libvfio can open it */
int dev_prepare(const char *bdf);
/* The device alone, without its BARs */
int dev_open(struct vfio_pci_device **dev, const char *bdf, struct iommu *iommu);
/*
 * The same, with its group in another domain of the IOMMU than that of device @other, which
 * is in the container.  The kernel attaches it to one of its own if it has no memory to
 * attach it to that one.  -ENODATA if it always has, or if memory cannot be made to fail.
 */
int dev_open_apart(struct vfio_pci_device **dev, const char *bdf, struct iommu *iommu,
		   const char *other);
int dev_get_fd(const struct vfio_pci_device *dev);
/* All but the group */
void dev_close_fd(struct vfio_pci_device *dev);
void dev_close(struct vfio_pci_device **dev);
void fd_close(int *fd);
/* Why a device cannot be opened in this mode of libvfio's, or NULL */
const char *mode_is_missing(const char *mode, const char *bdf);

bool dev_can_reset(const struct vfio_pci_device *dev);
int dev_hot_reset(const struct vfio_pci_device *dev);
int dev_function_level_reset(struct vfio_pci_device *dev);

/* Where a capability is in the config space of the device, or 0 */
u8 dev_find_cap(struct vfio_pci_device *dev, u8 id);
/* D0 to D3hot, of a device with power management */
void dev_set_power(struct vfio_pci_device *dev, u16 state);
int dev_feature_set(struct vfio_pci_device *dev, u32 feature);

/* Older kernels answer with ENOTTY */
#ifdef VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
#define HAVE_LOW_POWER	true
#else
#define HAVE_LOW_POWER	false
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY		3
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP	4
#define VFIO_DEVICE_FEATURE_LOW_POWER_EXIT		5
struct vfio_device_low_power_entry_with_wakeup {
	__s32 wakeup_eventfd;
	__u32 reserved;
};
#endif
int dev_low_power_with_wakeup(struct vfio_pci_device *dev, int eventfd);

/* Not in the headers of older kernels */
#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
/* Returns the file of a dma-buf of the first @size bytes of a BAR */
int dev_dmabuf_export(struct vfio_pci_device *dev, int bar, uint64_t size);
#endif

int region_info(int devfd, unsigned int index, struct vfio_region_info *info);
bool region_can_mmap(int devfd, unsigned int index);
void *bar_mmap(int devfd, unsigned int index, int prot, size_t offset, size_t size);
void *bar_mmap_at(void *addr, int devfd, unsigned int index, int prot, size_t offset,
		  size_t size);

/*
 * DMA mappings of any range, for reading or writing or both, from any thread.  libvfio's
 * iommu_map() maps for both, and keeps a list.  dma_unmap() returns the number of bytes
 * unmapped.
 */
int dma_map(struct iommu *iommu, u64 iova, const void *vaddr, u64 size, u32 flags);
int64_t dma_unmap(struct iommu *iommu, u64 iova, u64 size);
int64_t dma_unmap_flags(struct iommu *iommu, u64 iova, u64 size, u32 flags);
int64_t dma_avail(struct iommu *iommu);
int dma_track_dirty(struct iommu *iommu, bool on);
bool dma_has(struct iommu *iommu, int extension);
void iommu_close(struct iommu **iommu);

/* Newer than some kernels that have these tests */
#ifndef VFIO_DMA_UNMAP_FLAG_ALL
#define VFIO_UNMAP_ALL			9
#define VFIO_DMA_UNMAP_FLAG_ALL		0x2
#endif
#ifndef VFIO_DMA_MAP_FLAG_VADDR
#define VFIO_UPDATE_VADDR		10
#define VFIO_DMA_MAP_FLAG_VADDR		0x4
#define VFIO_DMA_UNMAP_FLAG_VADDR	0x4
#endif

/* What the kernel accounts to this process, in KiB */
long proc_locked_kb(void);
long proc_page_tables_kb(void);

/*
 * Have memory allocations fail in this thread: the @nth from now on, of those that cannot
 * sleep or of all.  fault_inject_open() returns a file for the others, or -ENOENT.
 * fault_injected() says whether one has failed, and ends it.
 */
int fault_inject_open(void);
int fault_inject_all(bool all);
int fault_inject(int fd, int nth);
bool fault_injected(int fd);

/*
 * The IOMMU's own page tables, as the kernel shows them in debugfs: is @iova
 * mapped for the device, and to which physical address?  Returns 1 if mapped, 0
 * if not, negative if this kernel or this IOMMU does not tell.
 */
int iommu_lookup(const char *bdf, uint64_t iova, uint64_t *phys);
/* How many entries of them map a part of that */
int iommu_count(const char *bdf, uint64_t iova, uint64_t size);
/* Is it mapped to @phys?  True as well if nothing is known; says so if it is not */
bool iommu_maps(const char *bdf, uint64_t iova, uint64_t phys);
/* Where they begin, which tells one domain from another; 0 if that is not known */
uint64_t iommu_table(const char *bdf);

/*
 * Device A, an edu, does DMA through a container; BAR @bar of device B is where
 * it may land.  p2p_open() finds both and opens A; a test opens B when it wants.
 */
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
int p2p_store(struct p2p *p, uint64_t iova, uint32_t val);
/* Does A's write to @iova reach @offset of B's BAR?  1, 0, or negative: unknown */
int p2p_lands(struct p2p *p, uint64_t iova, size_t offset);

/*
 * Ordinary memory.  p2p_agrees() writes to SPAN bytes at @ram, has A copy the first half of
 * them to the second at @iova, and looks at what is there: does A see what the process
 * writes, and the process what A writes?  1, 0 after saying what is not so, or negative:
 * unknown.  p2p_reads() asks for no more than that A reads what the process writes there,
 * p2p_still_reads() whether it reads what is said to be there.
 */
#define SPAN		SZ_2K

int p2p_agrees(struct p2p *p, uint64_t iova, void *ram);
int p2p_reads(struct p2p *p, uint64_t iova, void *ram);
int p2p_still_reads(struct p2p *p, uint64_t iova, uint8_t byte);

/*
 * RAM_SIZE bytes in one huge page or in small ones, of one kind or another, shared ones
 * with their file.  ram_is_missing() says why a kernel does not have a kind.
 */
#define RAM_SIZE	SZ_2M

struct ram_kind {
	bool huge;
	bool shared;
	bool hugetlb;
};

#define RAM_BYTE	0x11		/* what all of it is filled with */

const char *ram_is_missing(const struct ram_kind *kind);
void *ram_of_kind(const struct ram_kind *kind, int *fd);
/* Addresses where huge pages fit */
void *ram_reserve(size_t size);

/*
 * An empty ext4 on the pmem device that VFIO_SELFTESTS_PMEM in the environment names.  It is
 * formatted, so it is not looked for anywhere else.  Says why there is none, or NULL.
 */
#define PMEM_DIR_LEN	32

const char *pmem_mount(char *dir, const char *options);
/* Fails if there are users of it left.  Then too it is out of the way */
int pmem_unmount(char *dir);

/*
 * Which page frames are behind @n pages of this process?  0 for none: not there, or for
 * the user to know.
 */
int pages_of(const void *addr, size_t n, uint64_t *pfn);
bool ram_is_huge(const void *addr);

/* Device memory: one access of exactly this width each */
#define mmio_read32(addr)	__atomic_load_n((const uint32_t *)(addr), __ATOMIC_RELAXED)
#define mmio_write32(addr, val)	__atomic_store_n((uint32_t *)(addr), val, __ATOMIC_RELAXED)

/* Read device memory; returns 0, or -EFAULT when the access raised SIGBUS */
int bus_read32(const void *addr, uint32_t *val);

/* The kernel log from now on: one line, or the number of those with @word, -1 without log */
int kmsg_open(void);
bool kmsg_read(int fd, char *line, size_t len);
int kmsg_new_lines(int fd, const char *word);

/* Where tracefs is mounted; NULL if nowhere, or if it has no instances */
const char *tracing_dir(void);

/* For a forked child: do not outlive a test that failed, and keep devices busy */
void die_with_parent(void);

/* Is this kernel as new as that? */
bool kernel_since(int major, int minor);

/* A kernel module, by its file: -ENOENT if there is none, -EEXIST if it is loaded */
int module_load(const char *path);

/* Is it among the arguments of the program, or are there none but devices? */
bool asked_for(const char *name, int argc, char **argv);

uint64_t now_us(void);
void *ram_alloc(size_t size);

#endif /* SELFTESTS_VFIO_UTIL_H */
