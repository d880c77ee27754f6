// SPDX-License-Identifier: GPL-2.0
/*
 * The time that a bare iommu_map() takes, and the iommu_unmap() after it: what
 * mapping memory for DMA cannot cost less than.  The domain is the one that the
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
			   const struct iommu_floor *floor)
{
	int prot = IOMMU_READ | IOMMU_WRITE;

#ifdef IOMMU_MAP_TAKES_GFP
	return iommu_map(domain, floor->iova, floor->phys, floor->size, prot,
			 GFP_KERNEL);
#else
	return iommu_map(domain, floor->iova, floor->phys, floor->size, prot);
#endif
}

static int iommu_floor_measure(struct device *dev, struct iommu_floor *floor)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);
	cycles_t start, mapped, end;
	size_t size;
	int ret;

	if (!domain)
		return -ENODEV;
	if (!floor->size || iommu_iova_to_phys(domain, floor->iova))
		return -EINVAL;

	start = get_cycles();
	ret = iommu_floor_map(domain, floor);
	mapped = get_cycles();
	if (ret)
		return ret;

	cond_resched();
	floor->map = mapped - start;
	start = get_cycles();
	size = iommu_unmap(domain, floor->iova, floor->size);
	end = get_cycles();
	floor->unmap = end - start;

	return size == floor->size ? 0 : -EIO;
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
