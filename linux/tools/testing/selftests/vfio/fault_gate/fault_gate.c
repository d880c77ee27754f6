// SPDX-License-Identifier: GPL-2.0
/*
 * Memory whose page faults, and whose mmap(), wait at a gate until it is opened, for tests.
 * What waits holds mmap_lock: for reading in a fault of get_user_pages() that cannot be
 * retried, such as those of vfio's, and for writing in mmap().  userfaultfd offers neither:
 * it waits without the lock, and refuses faults that cannot be retried.
 *
 * Of /dev/fault_gate, page 0 and those that follow wait in their faults.  To mmap() page
 * GATE_MMAP is to wait there.  Write "0" to shut the gate and "1" to open it; read how many
 * wait at it.
 */
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define GATE_MMAP	1024

static DECLARE_WAIT_QUEUE_HEAD(fault_gate_wait);
static bool fault_gate_shut;
static atomic_t fault_gate_waiting;

/* Until the gate is open, or whoever waits is killed */
static int fault_gate_pass(void)
{
	int ret;

	atomic_inc(&fault_gate_waiting);
	ret = wait_event_killable(fault_gate_wait, !READ_ONCE(fault_gate_shut));
	atomic_dec(&fault_gate_waiting);

	return ret;
}

static vm_fault_t fault_gate_fault(struct vm_fault *vmf)
{
	struct page *page;

	if (fault_gate_pass())
		return VM_FAULT_SIGBUS;

	page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!page)
		return VM_FAULT_OOM;

	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct fault_gate_vm_ops = {
	.fault = fault_gate_fault,
};

static int fault_gate_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &fault_gate_vm_ops;

	return vma->vm_pgoff == GATE_MMAP ? fault_gate_pass() : 0;
}

static ssize_t fault_gate_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	char text[16];
	int n = scnprintf(text, sizeof(text), "%d\n", atomic_read(&fault_gate_waiting));

	return simple_read_from_buffer(buf, len, pos, text, n);
}

static ssize_t fault_gate_write(struct file *file, const char __user *buf, size_t len,
				loff_t *pos)
{
	char c;

	if (!len || get_user(c, buf))
		return -EFAULT;

	WRITE_ONCE(fault_gate_shut, c == '0');
	wake_up_all(&fault_gate_wait);
	return len;
}

/* Whoever is killed must not leave it shut */
static int fault_gate_release(struct inode *inode, struct file *file)
{
	if (file->f_mode & FMODE_WRITE) {
		WRITE_ONCE(fault_gate_shut, false);
		wake_up_all(&fault_gate_wait);
	}

	return 0;
}

static const struct file_operations fault_gate_fops = {
	.owner = THIS_MODULE,
	.read = fault_gate_read,
	.write = fault_gate_write,
	.mmap = fault_gate_mmap,
	.release = fault_gate_release,
};

static struct miscdevice fault_gate_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fault_gate",
	.mode = 0600,
	.fops = &fault_gate_fops,
};
module_misc_device(fault_gate_dev);

MODULE_DESCRIPTION("Memory whose page faults wait until they are told to go on");
MODULE_LICENSE("GPL");
