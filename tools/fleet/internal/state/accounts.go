package state

import (
	"fmt"
	"maps"
	"slices"
)

// AccountsOf are the user ids that were chosen for a set, in order.
func (s *State) AccountsOf(set string) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Values(part(s.noted.Accounts, []string{set})))
}

// Picker answers n ids that are nobody's, from near on, and, at the end of those that there are, from their first on, up to the one before
// before; both zero is anywhere.
type Picker func(near, before uint32, n int) ([]uint32, error)

// Account is the user id of a name, chosen once; see ChooseAccounts.
func (s *State) Account(name string, pick Picker) (uint32, error) {
	if err := s.ChooseAccounts([]string{name}, pick); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted.Accounts[name], nil
}

// ChooseAccounts chooses the user ids of those names that have none, once and all at once. An id that is some name's already is refused.
func (s *State) ChooseAccounts(names []string, pick Picker) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := s.noted.Accounts[name]; return ok })
	if len(names) == 0 {
		return nil
	}
	first, last := s.givenAccounts()
	near := last
	if near > 0 {
		near++
	}
	ids, err := pick(near, first, len(names))
	if err != nil {
		return err
	}
	if len(ids) != len(names) {
		return fmt.Errorf("%d user ids are needed and %d were picked", len(names), len(ids))
	}
	for i, id := range ids {
		for name, of := range s.noted.Accounts {
			if of == id {
				return fmt.Errorf("the user id %d was picked, which is %s's", id, name)
			}
		}
		if slices.Contains(ids[:i], id) {
			return fmt.Errorf("the user id %d was picked twice", id)
		}
	}
	for i, name := range names {
		s.noted.Accounts[name] = ids[i]
	}
	if first == 0 {
		first = ids[0]
	}
	s.noted.FirstAccount, s.noted.LastAccount = first, ids[len(ids)-1]
	return s.save()
}

// givenAccounts are the first id that was ever chosen and the latest: all that were are from the one to the other, going round. Zero are
// those of a plane that has chosen none.
func (s *State) givenAccounts() (first, last uint32) {
	if s.noted.FirstAccount != 0 {
		return s.noted.FirstAccount, s.noted.LastAccount
	}
	// A release before this one noted the highest alone, and chose upwards.
	first, last = s.noted.LastAccount, s.noted.LastAccount
	for _, id := range s.noted.Accounts {
		first, last = min(first, id), max(last, id)
	}
	return first, last
}
