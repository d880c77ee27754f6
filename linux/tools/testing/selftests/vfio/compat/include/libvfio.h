/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of the interface of libvfio as the tests of device memory use, for kernels
 * that do not have libvfio.
 */
#ifndef SELFTESTS_VFIO_COMPAT_LIBVFIO_H
#define SELFTESTS_VFIO_COMPAT_LIBVFIO_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include "../../../kselftest.h"

/*
 * Newer than some kernels that have these tests
 */
#ifndef VFIO_DMA_UNMAP_FLAG_ALL
#define VFIO_UNMAP_ALL			9
#define VFIO_DMA_UNMAP_FLAG_ALL		0x2
#endif

#ifndef VFIO_DMA_MAP_FLAG_VADDR
#define VFIO_UPDATE_VADDR		10
#define VFIO_DMA_MAP_FLAG_VADDR		0x4
#define VFIO_DMA_UNMAP_FLAG_VADDR	0x4
#endif

#ifndef VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY		3
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP	4
#define VFIO_DEVICE_FEATURE_LOW_POWER_EXIT		5
struct vfio_device_low_power_entry_with_wakeup {
	__s32 wakeup_eventfd;
	__u32 reserved;
};
#endif

/*
 * A failed assertion ends the process, and with it the test.
 */
#define VFIO_FAIL(...) do {							\
	fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);				\
	fprintf(stderr, " " __VA_ARGS__);					\
	fprintf(stderr, " [%s]\n", strerror(errno));				\
	exit(KSFT_FAIL);							\
} while (0)

#define VFIO_ASSERT_TRUE(cond, ...) do {					\
	if (!(cond))								\
		VFIO_FAIL("not true: " #cond " " __VA_ARGS__);			\
} while (0)

#define VFIO_ASSERT_EQ(a, b, ...)	VFIO_ASSERT_TRUE((a) == (b), ##__VA_ARGS__)
#define VFIO_ASSERT_GE(a, b, ...)	VFIO_ASSERT_TRUE((a) >= (b), ##__VA_ARGS__)
#define VFIO_ASSERT_LE(a, b, ...)	VFIO_ASSERT_TRUE((a) <= (b), ##__VA_ARGS__)
#define VFIO_ASSERT_NOT_NULL(p, ...)	VFIO_ASSERT_TRUE((p) != NULL, ##__VA_ARGS__)

/*
 * Address spaces for DMA
 */
typedef u64 iova_t;

#define MODE_VFIO_TYPE1_IOMMU		"vfio_type1_iommu"
#define MODE_VFIO_TYPE1V2_IOMMU		"vfio_type1v2_iommu"
#define MODE_IOMMUFD_COMPAT_TYPE1V2	"iommufd_compat_type1v2"
#define MODE_IOMMUFD			"iommufd"

struct iommu_mode {
	const char *name;
	const char *container_path;
	unsigned long iommu_type;
};

struct dma_region {
	struct list_head link;
	void *vaddr;
	iova_t iova;
	u64 size;
};

struct iommu {
	const struct iommu_mode *mode;
	int container_fd;
	int iommufd;
	u32 ioas_id;
	struct list_head dma_regions;
};

struct iommu *iommu_init(const char *iommu_mode);
void iommu_cleanup(struct iommu *iommu);
int __iommu_map(struct iommu *iommu, struct dma_region *region);
int __iommu_unmap(struct iommu *iommu, struct dma_region *region, u64 *unmapped);
int __iommu_unmap_all(struct iommu *iommu, u64 *unmapped);

static inline void iommu_map(struct iommu *iommu, struct dma_region *region)
{
	VFIO_ASSERT_EQ(__iommu_map(iommu, region), 0);
}

/*
 * Devices, and what makes them do DMA
 */
struct vfio_pci_device;

struct vfio_pci_driver_ops {
	const char *name;
	int (*probe)(struct vfio_pci_device *device);
	void (*init)(struct vfio_pci_device *device);
	void (*remove)(struct vfio_pci_device *device);
	void (*memcpy_start)(struct vfio_pci_device *device, iova_t src, iova_t dst,
			     u64 size, u64 count);
	int (*memcpy_wait)(struct vfio_pci_device *device);
	void (*send_msi)(struct vfio_pci_device *device);
};

extern const struct vfio_pci_driver_ops edu_ops;

struct vfio_pci_driver {
	const struct vfio_pci_driver_ops *ops;
	bool initialized;
	bool memcpy_in_progress;
	struct dma_region region;
	u64 max_memcpy_size;
	u64 max_memcpy_count;
	int msi;
};

struct vfio_pci_bar {
	struct vfio_region_info info;
	void *vaddr;
};

struct vfio_pci_device {
	const char *bdf;
	int fd;
	int group_fd;
	struct iommu *iommu;
	struct vfio_device_info info;
	struct vfio_region_info config_space;
	struct vfio_pci_bar bars[PCI_STD_NUM_BARS];
	struct vfio_irq_info msi_info;
	struct vfio_irq_info msix_info;
	int msi_eventfds[PCI_MSIX_FLAGS_QSIZE + 1];
	struct vfio_pci_driver driver;
};

#define dev_err(dev, fmt, ...)	fprintf(stderr, "%s: " fmt, (dev)->bdf, ##__VA_ARGS__)

struct vfio_pci_device *vfio_pci_device_alloc(const char *bdf, struct iommu *iommu);
void vfio_pci_device_free(struct vfio_pci_device *device);
struct vfio_pci_device *vfio_pci_device_init(const char *bdf, struct iommu *iommu);
void vfio_pci_device_cleanup(struct vfio_pci_device *device);
int __vfio_pci_device_reset(struct vfio_pci_device *device);

void vfio_pci_group_setup(struct vfio_pci_device *device, const char *bdf);
void vfio_container_set_iommu(struct vfio_pci_device *device);
void __vfio_pci_group_get_device_fd(struct vfio_pci_device *device, const char *bdf,
				    const char *vf_token);

void vfio_pci_irq_enable(struct vfio_pci_device *device, u32 index, u32 vector, int count);
void vfio_pci_irq_disable(struct vfio_pci_device *device, u32 index);

static inline void vfio_pci_msi_enable(struct vfio_pci_device *device, u32 vector, int count)
{
	vfio_pci_irq_enable(device, VFIO_PCI_MSI_IRQ_INDEX, vector, count);
}

static inline void vfio_pci_msi_disable(struct vfio_pci_device *device)
{
	vfio_pci_irq_disable(device, VFIO_PCI_MSI_IRQ_INDEX);
}

void vfio_pci_config_access(struct vfio_pci_device *device, bool write, size_t config,
			    size_t size, void *data);

static inline u8 vfio_pci_config_readb(struct vfio_pci_device *device, size_t config)
{
	u8 value;

	vfio_pci_config_access(device, false, config, sizeof(value), &value);
	return value;
}

static inline u32 vfio_pci_config_readl(struct vfio_pci_device *device, size_t config)
{
	u32 value;

	vfio_pci_config_access(device, false, config, sizeof(value), &value);
	return value;
}

static inline u16 vfio_pci_config_readw(struct vfio_pci_device *device, size_t config)
{
	u16 value;

	vfio_pci_config_access(device, false, config, sizeof(value), &value);
	return value;
}

static inline void vfio_pci_config_writeb(struct vfio_pci_device *device, size_t config, u8 value)
{
	vfio_pci_config_access(device, true, config, sizeof(value), &value);
}

static inline void vfio_pci_config_writew(struct vfio_pci_device *device, size_t config, u16 value)
{
	vfio_pci_config_access(device, true, config, sizeof(value), &value);
}

static inline void vfio_pci_cmd_set(struct vfio_pci_device *device, u16 bits)
{
	vfio_pci_config_writew(device, PCI_COMMAND,
			       vfio_pci_config_readw(device, PCI_COMMAND) | bits);
}

static inline void vfio_pci_cmd_clear(struct vfio_pci_device *device, u16 bits)
{
	vfio_pci_config_writew(device, PCI_COMMAND,
			       vfio_pci_config_readw(device, PCI_COMMAND) & ~bits);
}

static inline bool vfio_pci_device_match(struct vfio_pci_device *device, u16 vendor_id,
					 u16 device_id)
{
	return vfio_pci_config_readw(device, PCI_VENDOR_ID) == vendor_id &&
	       vfio_pci_config_readw(device, PCI_DEVICE_ID) == device_id;
}

void vfio_pci_driver_init(struct vfio_pci_device *device);
void vfio_pci_driver_remove(struct vfio_pci_device *device);
int vfio_pci_driver_memcpy(struct vfio_pci_device *device, iova_t src, iova_t dst, u64 size);

/*
 * sysfs
 */
int sysfs_iommu_group_get(const char *bdf);
char *sysfs_driver_get(const char *bdf);

#endif /* SELFTESTS_VFIO_COMPAT_LIBVFIO_H */
