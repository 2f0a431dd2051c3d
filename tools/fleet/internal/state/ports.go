package state

import (
	"crypto/rand"
	"fmt"
	"maps"
	"math/big"
	"net"
	"slices"
	"strconv"
)

// Ports below those that systems hand out by themselves (32768 on Linux), so that a connection made by chance does not sit on one.
const (
	firstPort = 20000
	portCount = 10000
)

// Port is the port of a name, chosen once: free at that moment, and nobody else's in this plane.
func (s *State) Port(name string) (int, error) {
	if err := s.ChoosePorts([]string{name}); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted.Ports[name], nil
}

// ChoosePorts chooses the ports of those names that have none, once and all at once; see Port.
func (s *State) ChoosePorts(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen := false
	for _, name := range names {
		if _, ok := s.noted.Ports[name]; ok {
			continue
		}
		port, err := s.freePort()
		if err != nil {
			return err
		}
		s.noted.Ports[name], chosen = port, true
	}
	if !chosen {
		return nil
	}
	return s.save()
}

func (s *State) freePort() (int, error) {
	taken := slices.Collect(maps.Values(s.noted.Ports))
	const tries = 200
	for range tries {
		n, err := rand.Int(rand.Reader, big.NewInt(portCount))
		if err != nil {
			return 0, err
		}
		if port := firstPort + int(n.Int64()); !slices.Contains(taken, port) && Free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port was found between %d and %d on 127.0.0.1", firstPort, firstPort+portCount)
}

// ForgetTaken gives up ports that somebody else listens on by now. It is for a plane that is not running.
func (s *State) ForgetTaken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for name, port := range s.noted.Ports {
		if !Free(port) {
			delete(s.noted.Ports, name)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return s.save()
}

// Free says whether a port of 127.0.0.1 can be listened on.
func Free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // loopback answers at once
	if err != nil {
		return false
	}
	return l.Close() == nil
}
