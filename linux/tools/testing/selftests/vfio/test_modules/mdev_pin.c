// SPDX-License-Identifier: GPL-2.0
/*
 * A mediated device that pins one page of its user's mappings, for tests.
 *
 * Write a 64-bit IOVA to it to have that page pinned, read three 64-bit numbers
 * from it: how many pages are pinned (0 or 1), how often it was told to unpin,
 * and the physical address of the last page that it pinned.  Its mmap is of pfns
 * of the parent driver's.
 */
#include <linux/device.h>
#include <linux/iommu.h>
#include <linux/mdev.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#define MDEV_PIN_NAME	"mdev_pin"

struct mdev_pin {
	struct vfio_device	vdev;
	struct mutex		lock;		/* All below */
	dma_addr_t		iova;
	phys_addr_t		phys;
	bool			pinned;
	u64			told;
};

static struct platform_device *mdev_pin_pdev;
static struct mdev_parent mdev_pin_parent;
static unsigned long mdev_pin_page;

static struct mdev_pin *to_pin(struct vfio_device *vdev)
{
	return container_of(vdev, struct mdev_pin, vdev);
}

static void mdev_pin_unpin(struct mdev_pin *pin)
{
	lockdep_assert_held(&pin->lock);

	if (pin->pinned)
		vfio_unpin_pages(&pin->vdev, pin->iova, 1);
	pin->pinned = false;
}

static void mdev_pin_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct mdev_pin *pin = to_pin(vdev);

	mutex_lock(&pin->lock);
	if (pin->pinned && pin->iova >= iova && pin->iova - iova < length) {
		mdev_pin_unpin(pin);
		pin->told++;
	}
	mutex_unlock(&pin->lock);
}

static int mdev_pin_init_dev(struct vfio_device *vdev)
{
	mutex_init(&to_pin(vdev)->lock);

	return 0;
}

static int mdev_pin_open(struct vfio_device *vdev)
{
	return 0;
}

static void mdev_pin_close(struct vfio_device *vdev)
{
	struct mdev_pin *pin = to_pin(vdev);

	mutex_lock(&pin->lock);
	mdev_pin_unpin(pin);
	mutex_unlock(&pin->lock);
}

static ssize_t mdev_pin_read(struct vfio_device *vdev, char __user *buf,
			     size_t count, loff_t *ppos)
{
	struct mdev_pin *pin = to_pin(vdev);
	u64 info[3];

	if (count != sizeof(info))
		return -EINVAL;

	mutex_lock(&pin->lock);
	info[0] = pin->pinned;
	info[1] = pin->told;
	info[2] = pin->phys;
	mutex_unlock(&pin->lock);

	return copy_to_user(buf, info, sizeof(info)) ? -EFAULT : sizeof(info);
}

static ssize_t mdev_pin_write(struct vfio_device *vdev, const char __user *buf,
			      size_t count, loff_t *ppos)
{
	struct mdev_pin *pin = to_pin(vdev);
	struct page *page;
	u64 iova;
	int ret;

	if (count != sizeof(iova))
		return -EINVAL;
	if (copy_from_user(&iova, buf, sizeof(iova)))
		return -EFAULT;

	mutex_lock(&pin->lock);
	mdev_pin_unpin(pin);
	pin->iova = iova & PAGE_MASK;
	ret = vfio_pin_pages(vdev, pin->iova, 1, IOMMU_READ | IOMMU_WRITE, &page);
	pin->pinned = ret == 1;
	if (pin->pinned)
		pin->phys = page_to_phys(page);
	mutex_unlock(&pin->lock);

	if (ret < 0)
		return ret;

	return ret == 1 ? count : -EFAULT;
}

static int mdev_pin_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	if (vma->vm_end - vma->vm_start != PAGE_SIZE)
		return -EINVAL;

	return remap_pfn_range(vma, vma->vm_start,
			       virt_to_phys((void *)mdev_pin_page) >> PAGE_SHIFT,
			       PAGE_SIZE, vma->vm_page_prot);
}

static const struct vfio_device_ops mdev_pin_ops = {
	.name = MDEV_PIN_NAME,
	.init = mdev_pin_init_dev,
	.open_device = mdev_pin_open,
	.close_device = mdev_pin_close,
	.read = mdev_pin_read,
	.write = mdev_pin_write,
	.mmap = mdev_pin_mmap,
	.dma_unmap = mdev_pin_dma_unmap,
#ifdef VFIO_DEVICE_BIND_IOMMUFD
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
#else	/* Before there was iommufd, devices were freed by their drivers */
	.release = vfio_free_device,
#endif
};

static int mdev_pin_probe(struct mdev_device *mdev)
{
	struct mdev_pin *pin;
	int ret;

	pin = vfio_alloc_device(mdev_pin, vdev, &mdev->dev, &mdev_pin_ops);
	if (IS_ERR(pin))
		return PTR_ERR(pin);

	ret = vfio_register_emulated_iommu_dev(&pin->vdev);
	if (ret) {
		vfio_put_device(&pin->vdev);
		return ret;
	}
	dev_set_drvdata(&mdev->dev, pin);

	return 0;
}

static void mdev_pin_remove(struct mdev_device *mdev)
{
	struct mdev_pin *pin = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&pin->vdev);
	vfio_put_device(&pin->vdev);
}

static unsigned int mdev_pin_available(struct mdev_type *mtype)
{
	return INT_MAX;
}

static struct mdev_driver mdev_pin_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.driver = {
		.name = MDEV_PIN_NAME,
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
	},
	.probe = mdev_pin_probe,
	.remove = mdev_pin_remove,
	.get_available = mdev_pin_available,
};

/* What VFIO hands to vendor drivers: pages, or pfns on kernels older than this */
static struct mdev_type mdev_pin_type = {
	.sysfs_name = "pages",
	.pretty_name = MDEV_PIN_NAME,
};

static struct mdev_type *mdev_pin_types[] = { &mdev_pin_type };

static int __init mdev_pin_init(void)
{
	int ret;

	mdev_pin_page = get_zeroed_page(GFP_KERNEL);
	if (!mdev_pin_page)
		return -ENOMEM;

	ret = mdev_register_driver(&mdev_pin_driver);
	if (ret)
		goto err_page;

	mdev_pin_pdev = platform_device_register_simple(MDEV_PIN_NAME, PLATFORM_DEVID_NONE,
							NULL, 0);
	if (IS_ERR(mdev_pin_pdev)) {
		ret = PTR_ERR(mdev_pin_pdev);
		goto err_driver;
	}

	ret = mdev_register_parent(&mdev_pin_parent, &mdev_pin_pdev->dev, &mdev_pin_driver,
				   mdev_pin_types, ARRAY_SIZE(mdev_pin_types));
	if (ret)
		goto err_dev;

	return 0;

err_dev:
	platform_device_unregister(mdev_pin_pdev);
err_driver:
	mdev_unregister_driver(&mdev_pin_driver);
err_page:
	free_page(mdev_pin_page);
	return ret;
}

static void __exit mdev_pin_exit(void)
{
	mdev_unregister_parent(&mdev_pin_parent);
	platform_device_unregister(mdev_pin_pdev);
	mdev_unregister_driver(&mdev_pin_driver);
	free_page(mdev_pin_page);
}

module_init(mdev_pin_init);
module_exit(mdev_pin_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Mediated device that pins a page, for tests");
