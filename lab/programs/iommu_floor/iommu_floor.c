// SPDX-License-Identifier: GPL-2.0
/*
 * The time that bare calls of iommu_map() take, and those of iommu_unmap_fast() after
 * them with one iommu_iotlb_sync(): what mapping memory for DMA cannot cost less than.
 * For one range that is iommu_map() and iommu_unmap().  The domain is the one that the
 * given device is attached to, so that the page tables, the page sizes and the
 * flushes are those of whoever attached it.  It must have nothing mapped there.
 *
 * For benchmarks.  It maps whatever it is told to: never load it elsewhere.
 */
#include <linux/iommu.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/timex.h>
#include <linux/uaccess.h>

#include "iommu_floor.h"

static int iommu_floor_map(struct iommu_domain *domain,
			   const struct iommu_floor *floor, unsigned long i)
{
	u64 phys = floor->phys + i * floor->size % floor->span;
	u64 iova = floor->iova + i * floor->step;
	int prot = IOMMU_READ | IOMMU_WRITE;

#ifdef IOMMU_MAP_TAKES_GFP
	return iommu_map(domain, iova, phys, floor->size, prot, GFP_KERNEL);
#else
	return iommu_map(domain, iova, phys, floor->size, prot);
#endif
}

/* Returns how many ranges of @count were unmapped whole */
static unsigned long iommu_floor_unmap(struct iommu_domain *domain,
				       const struct iommu_floor *floor,
				       unsigned long count)
{
	struct iommu_iotlb_gather gather;
	unsigned long i, done = 0;

	iommu_iotlb_gather_init(&gather);
	for (i = 0; i < count; i++)
		if (iommu_unmap_fast(domain, floor->iova + i * floor->step,
				     floor->size, &gather) == floor->size)
			done++;
	iommu_iotlb_sync(domain, &gather);

	return done;
}

static int iommu_floor_measure(struct device *dev, struct iommu_floor *floor)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);
	cycles_t start, end;
	unsigned long i;
	int ret = 0;

	if (!domain)
		return -ENODEV;
	if (!floor->size || !floor->span || !floor->count ||
	    iommu_iova_to_phys(domain, floor->iova))
		return -EINVAL;

	start = get_cycles();
	for (i = 0; i < floor->count && !ret; i++)
		ret = iommu_floor_map(domain, floor, i);
	end = get_cycles();
	if (ret) {
		iommu_floor_unmap(domain, floor, i - 1);
		return ret;
	}

	cond_resched();
	floor->map = end - start;
	start = get_cycles();
	i = iommu_floor_unmap(domain, floor, floor->count);
	end = get_cycles();
	floor->unmap = end - start;

	return i == floor->count ? 0 : -EIO;
}

static long iommu_floor_ioctl(struct file *file, unsigned int cmd,
			      unsigned long arg)
{
	void __user *user = (void __user *)arg;
	struct iommu_floor floor;
	struct pci_dev *pdev;
	int ret;

	if (cmd != IOMMU_FLOOR_MEASURE)
		return -ENOTTY;
	if (copy_from_user(&floor, user, sizeof(floor)))
		return -EFAULT;

	pdev = pci_get_domain_bus_and_slot(floor.domain, floor.bus, floor.devfn);
	if (!pdev)
		return -ENODEV;

	ret = iommu_floor_measure(&pdev->dev, &floor);
	pci_dev_put(pdev);
	if (!ret && copy_to_user(user, &floor, sizeof(floor)))
		ret = -EFAULT;

	return ret;
}

static const struct file_operations iommu_floor_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= iommu_floor_ioctl,
};

static struct miscdevice iommu_floor_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= IOMMU_FLOOR_DEV,
	.fops	= &iommu_floor_fops,
	.mode	= 0600,
};

module_misc_device(iommu_floor_misc);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("The cost of bare IOMMU calls, for benchmarks");
