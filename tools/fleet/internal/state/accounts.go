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

// Account is the user id of a name, chosen once; see ChooseAccounts.
func (s *State) Account(name string, pick func(near uint32, n int) ([]uint32, error)) (uint32, error) {
	if err := s.ChooseAccounts([]string{name}, pick); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted.Accounts[name], nil
}

// ChooseAccounts chooses the user ids of those names that have none, once and all at once. pick answers so many ids that are nobody's, from
// near on; zero is anywhere.
func (s *State) ChooseAccounts(names []string, pick func(near uint32, n int) ([]uint32, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := s.noted.Accounts[name]; return ok })
	if len(names) == 0 {
		return nil
	}
	near := s.noted.LastAccount
	for _, id := range s.noted.Accounts {
		near = max(near, id)
	}
	if near > 0 {
		near++
	}
	ids, err := pick(near, len(names))
	if err != nil {
		return err
	}
	if len(ids) != len(names) {
		return fmt.Errorf("%d user ids are needed and %d were picked", len(names), len(ids))
	}
	for i, name := range names {
		s.noted.Accounts[name] = ids[i]
		s.noted.LastAccount = max(s.noted.LastAccount, ids[i])
	}
	return s.save()
}
