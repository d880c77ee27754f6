/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ranges of device memory in the IOMMU domains of one container: mapped,
 * suspended, resumed and unmapped, while domains come and go.
 *
 * A range consists of SZ pieces.  A piece is what one section of devmem_lock
 * maps: its page table entries are in one page table.  "done" is how many
 * pieces of a range, from its first, are in the page tables.
 *
 *   Mapper	    MAP_DMA of NR ranges, UNMAP_DMA; ROUNDS times.  UNMAP_DMA may
 *		    leave the first range, which is of another vfio_dma then.
 *		    Holds iommu->lock.
 *   Device(o)	    suspends and resumes tracking object o, and may release it
 *		    in the end.  That is the callback; it holds mem_lock, so
 *		    these come one after the other, and not iommu->lock.
 *   Groups	    a group joins with a domain of its own, the group of the
 *		    first domain leaves, and that of the second one may.
 *		    Holds iommu->lock.
 *
 * Two objects (with TWO) are two devices.
 *
 * Every section of devmem_lock ends with the invariant, in unlock_devmem().
 * Whoever waits for devmem_lock waits for somebody who waits for nothing; as
 * every process ends, a deadlock would be found.
 *
 * Alternatives to the design, of which spin must find the flaw named:
 *
 *   LOOK_ONCE	    map looks for "away" and "dead" in its first section only:
 *		    mapped while the memory is away
 *   UNLINK_LATER   unmap takes the ranges out of the IOMMU in one section and
 *		    off the lists in another: mapped when UNMAP_DMA is through
 *   UNMAP_HOLES    what is not mapped is unmapped as well, and the IOMMU
 *		    driver takes its neighbour along: the domains differ
 *   TRUST_RANGE    resume goes on with its range after devmem_lock was
 *		    dropped: use after free
 *   NO_UNROLL	    a piece that one domain cannot map stays in those before:
 *		    the domains differ
 *   ONE_CALL	    the whole range is one call, and the IOMMU driver leaves
 *		    what it has mapped when it runs out of memory: mapped
 *		    though the range is not
 *   JOIN_UNSEEN    a domain is known to suspend and release only when it has
 *		    all mappings: mapped while the memory is away
 *   JOIN_NO_RESUME resume leaves the domain that joins alone: the domains
 *		    differ
 *   FREE_LISTED    a domain is freed before it is off the list (as stock
 *		    does): use after free
 *   NO_RETRY	    a resume that failed is not tried again by MAP and UNMAP:
 *		    left suspended
 *   NO_LAST_DOMAIN the last domain goes and the ranges stay: a range without
 *		    a domain to be in
 *
 * One that has no flaw, so it is a matter of cost:
 *
 *   UNMAP_IN_ORDER unmap has a section for each range, which unmaps and
 *		    unlinks it; a resume then maps what is about to go
 */

#ifndef NR
#define NR	2		/* ranges of the vfio_dma */
#endif
#ifndef SZ
#define SZ	2		/* pieces of a range */
#endif
#ifndef ROUNDS
#define ROUNDS	2
#endif
#ifdef TWO
#define NO	2		/* objects */
#else
#define NO	1
#endif
#define OBJ(r)	((r) % NO)
#define ND	2		/* domains */
#define NONE	9
#define PT(d, r) pt[(d) * NR + (r)]

bool iommu_lock;
bool devmem_lock;

/* under devmem_lock */
bool away[NO];
bool dead[NO];
bool linked[NR];		/* the range exists */
byte done[NR];
bool listed[ND];
byte joining = NONE;		/* domain that is being filled */
byte pos;			/* ... as far as here, over all ranges */

byte pt[ND * NR];		/* pieces in the page tables of a domain */
bool domain_freed[ND];

byte failures = 2;		/* how often memory may be short */
bool owed[NO];			/* a resume has failed since */

/* what must never be */
bool away_mapped;
bool unlinked_mapped;
bool uneven;
bool range_gone;
bool domain_gone;
bool left_suspended;
bool no_domain;

/* Of a range that is done as far as "done": how much a domain should have */
#define joined(r)	(pos <= (r) * SZ -> 0 :		\
			 (pos - (r) * SZ < done[r] -> pos - (r) * SZ : done[r]))
#define wanted(d, r)	(!linked[r] -> 0 :		\
			 (listed[d] -> done[r] :	\
			  (joining == d -> joined(r) : 0)))

inline lock_devmem()	{ !devmem_lock -> devmem_lock = true }

inline unlock_devmem()
{
	d_step {
		r = 0;
		do
		:: r < NR ->
			d = 0;
			do
			:: d < ND ->
				away_mapped = PT(d, r) && linked[r] &&
					      (away[OBJ(r)] || dead[OBJ(r)]);
				assert(!away_mapped);
				unlinked_mapped = PT(d, r) && !linked[r];
				assert(!unlinked_mapped);
				uneven = !domain_freed[d] &&
					 PT(d, r) != wanted(d, r);
				assert(!uneven);
				d++
			:: d == ND -> break
			od;
			r++
		:: r == NR -> break
		od;
		r = 0;
		d = 0;
		devmem_lock = false
	}
}

/*
 * The next piece of range r, in every domain that should have it.  Sets
 * failed if memory is short; it is nowhere then.
 */
inline map_piece(r)
{
	d = 0;
	do
	:: d < ND && (listed[d]
#ifndef JOIN_NO_RESUME
		      || (joining == d && r * SZ + done[r] < pos)
#endif
		     ) ->
		domain_gone = domain_freed[d];
		assert(!domain_gone);
		if
		:: PT(d, r)++; d++
		:: failures > 0 ->
			failures--;
			failed = true;
#ifndef NO_UNROLL
			do
			:: d > 0 ->
				d--;
				if
				:: PT(d, r) > done[r] -> PT(d, r)--
				:: else
				fi
			:: d == 0 -> break
			od;
#endif
			break
#ifdef ONE_CALL
		/* not the first piece of the call; what is mapped stays */
		:: failures > 0 ->
			failures--;
			failed = true;
			PT(d, r)++;
			break
#endif
		fi
	:: d < ND && !(listed[d]
#ifndef JOIN_NO_RESUME
		       || (joining == d && r * SZ + done[r] < pos)
#endif
		      ) -> d++
	:: d == ND -> done[r]++; break
	od;
	d = 0
}

/* All of range r, in every domain that has any of it */
inline unmap_range(r)
{
	d_step {
		d = 0;
		do
		:: d < ND && (listed[d]
#ifndef JOIN_UNSEEN
			      || joining == d
#endif
			     ) ->
			domain_gone = domain_freed[d];
			assert(!domain_gone);
			PT(d, r) = 0;
#ifdef UNMAP_HOLES
			if
			:: done[r] < SZ && r + 1 < NR -> PT(d, r + 1) = 0
			:: else
			fi;
#endif
			d++
		:: d < ND && !(listed[d]
#ifndef JOIN_UNSEEN
			       || joining == d
#endif
			      ) -> d++
		:: d == ND -> break
		od;
		d = 0;
		done[r] = 0
	}
}

#define todo(r, o)	(linked[r] && OBJ(r) == o && done[r] < SZ)

/*
 * Map what is not mapped of object o, one piece a section.  Nothing is known
 * of a range once devmem_lock was dropped, except that the object is there.
 */
inline catch_up(o)
{
	more = true;
	do
	:: atomic {
		more ->
		lock_devmem();
#ifdef TRUST_RANGE
		if
		:: n < NR ->
			range_gone = !linked[n];
			assert(!range_gone)
		:: else
		fi;
#endif
		n = 0;
		do
		:: n < NR && todo(n, o) && !away[o] && !dead[o] -> break
		:: n < NR && !(todo(n, o) && !away[o] && !dead[o]) -> n++
		:: n == NR -> break
		od;
		if
		:: n == NR ->
			more = false;
			owed[o] = false
		:: else ->
			map_piece(n);
			if
			:: failed ->
				failed = false;
				more = false;
				owed[o] = true
			:: else
			fi
		fi;
#ifdef TRUST_RANGE
		if
		:: n < NR && done[n] < SZ && more
		:: else -> n = NR
		fi;
#else
		n = NR;
#endif
		unlock_devmem()
	   }
	:: atomic { !more -> break }
	od
}

/* iommu->lock held: ranges from "first" on are unmapped, and are no more */
inline unlink_from(first)
{
#ifdef UNMAP_IN_ORDER
	n = first;
	do
	:: atomic {
		n < NR ->
		lock_devmem();
		if
		:: linked[n] -> unmap_range(n); linked[n] = false
		:: else
		fi;
		n++;
		unlock_devmem()
	   }
	:: atomic { n == NR -> break }
	od
#else
	atomic {
		lock_devmem();
		n = first;
		do
		:: n < NR ->
			if
			:: linked[n] -> unmap_range(n)
			:: else
			fi;
#ifndef UNLINK_LATER
			linked[n] = false;
#endif
			n++
		:: n == NR -> break
		od;
		unlock_devmem()
	}
#ifdef UNLINK_LATER
	atomic {
		lock_devmem();
		n = first;
		do
		:: n < NR -> linked[n] = false; done[n] = 0; n++
		:: n == NR -> break
		od;
		unlock_devmem()
	}
#endif
#endif
}

inline retry()
{
#ifndef NO_RETRY
	o = 0;
	do
	:: atomic { o < NO && owed[o] } -> catch_up(o); o++
	:: atomic { o < NO && !owed[o] -> o++ }
	:: atomic { o == NO -> o = 0; break }
	od
#else
	atomic {
		o = 0;
		do
		:: o < NO ->
			left_suspended = owed[o] && !away[o] && !dead[o];
			assert(!left_suspended);
			o++
		:: o == NO -> o = 0; break
		od
	}
#endif
}

proctype Mapper()
{
	byte round, k, from, n = NR, r, d, o;
	bool failed, looked, more;

	do
	:: atomic { round < ROUNDS -> !iommu_lock -> iommu_lock = true }
		/* ---- map ---- */
		atomic {
			/* without a domain nothing is mapped */
			if
			:: !listed[0] && !listed[1] -> goto unlock
			:: else
			fi;
			/* gone with the last domain? */
			if
			:: from && !linked[0] -> from = 0
			:: else
			fi;
			k = from
		}
		do
		:: atomic { k < NR ->
			/* the driver is asked: open, enabled? */
			if
			:: away[OBJ(k)] || dead[OBJ(k)] -> goto undo
			:: else
			fi
		   }
		   atomic {
			lock_devmem();
			linked[k] = true;
			done[k] = 0;
			looked = false;
			unlock_devmem()
		   }
		   do
		   :: atomic {
			lock_devmem();
			if
			:: done[k] == SZ || (!looked &&
			   (away[OBJ(k)] || dead[OBJ(k)])) ->
				unlock_devmem();
				break
			:: else
			fi;
#ifdef LOOK_ONCE
			looked = true;
#endif
			map_piece(k);
			unlock_devmem();
			if
			:: failed -> failed = false; goto undo
			:: else
			fi
		      }
		   od;
		   atomic { looked = false; k++ }
		:: atomic { k == NR -> k = 0; break }
		od;
		retry();
		atomic { iommu_lock = false }

		/* ---- unmap ---- */
		atomic {
			!iommu_lock -> iommu_lock = true;
			if
			:: from = 0
			:: from = NR > 1
			fi
		}
undo:		atomic { k = 0; looked = false }
		unlink_from(from);
		retry();
unlock:		atomic { iommu_lock = false; round++ }
	:: atomic { round == ROUNDS -> break }
	od
}

proctype Device(byte o)
{
	byte turn, n = NR, r, d;
	bool failed, more;

	do
	:: atomic {
		turn < 2 ->
		lock_devmem();
		away[o] = true;
		do
		:: n > 0 ->
			n--;
			if
			:: linked[n] && OBJ(n) == o -> unmap_range(n)
			:: else
			fi
		:: n == 0 -> break
		od;
		n = NR;
		owed[o] = false;
		unlock_devmem()
	   }
	   /* the memory is away */
	   atomic { lock_devmem(); away[o] = false; unlock_devmem() }
	   catch_up(o);
	   atomic { turn++ }
	:: atomic { turn == 2 -> break }
	od;
	if
	:: atomic {
		lock_devmem();
		dead[o] = true;
		n = 0;
		do
		:: n < NR ->
			if
			:: linked[n] && OBJ(n) == o -> unmap_range(n)
			:: else
			fi;
			n++
		:: n == NR -> break
		od;
		owed[o] = false;
		unlock_devmem()
	   }
	:: skip
	fi
}

proctype Groups()
{
	byte v, n = NR, r, d;

	/* ---- a domain joins ---- */
	atomic { !iommu_lock -> iommu_lock = true }
	/* RAM comes first, and is not in this model */
	atomic { lock_devmem(); joining = 1; pos = 0; unlock_devmem() }
	do
	:: atomic {
		joining == 1 ->
		lock_devmem();
		if
		:: pos >= NR * SZ ->
			joining = NONE;
			pos = 0;
			listed[1] = true
		:: pos < NR * SZ && linked[pos / SZ] &&
		   pos % SZ < done[pos / SZ] ->
			if
			:: PT(1, pos / SZ)++; pos++
			:: failures > 0 ->
				/* all of it goes again */
				failures--;
				n = 0;
				do
				:: n < NR -> PT(1, n) = 0; n++
				:: n == NR -> break
				od;
				joining = NONE;
				pos = 0
			fi
		:: else -> pos = (pos / SZ + 1) * SZ
		fi;
		unlock_devmem()
	   }
	:: atomic { joining != 1 -> break }
	od;
	atomic {
		domain_freed[1] = !listed[1];
		iommu_lock = false
	}

	/* ---- the first domain goes, and then perhaps the second ---- */
	do
	:: atomic {
		v < ND && !domain_freed[v] ->
		if
		:: v == 1 -> break
		:: true
		fi;
		!iommu_lock -> iommu_lock = true
	   }
#ifndef NO_LAST_DOMAIN
	   if
	   :: atomic { !listed[1 - v] } -> unlink_from(0)
	   :: atomic { listed[1 - v] -> skip }
	   fi;
#endif
#ifdef FREE_LISTED
	   atomic { domain_freed[v] = true };
#endif
	   atomic {
		lock_devmem();
		listed[v] = false;
		n = 0;
		do
		:: n < NR ->
			PT(v, n) = 0;		/* goes with the domain */
			no_domain = linked[n] && !listed[1 - v];
			assert(!no_domain);
			n++
		:: n == NR -> break
		od;
		unlock_devmem()
	   }
	   atomic {
		domain_freed[v] = true;		/* iommu_domain_free() */
		iommu_lock = false;
		v++
	   }
	:: atomic { v == ND || domain_freed[v] -> break }
	od
}

init {
	byte r;

	atomic {
		listed[0] = true;
		run Mapper();
		run Device(0);
#ifdef TWO
		run Device(1);
#endif
		run Groups()
	}
	atomic {
		_nr_pr == 1 ->
		do
		:: r < NR ->
			left_suspended = linked[r] && !away[OBJ(r)] &&
					 !dead[OBJ(r)] && !owed[OBJ(r)] &&
					 done[r] < SZ;
			assert(!left_suspended);
			r++
		:: r == NR -> break
		od
	}
}
