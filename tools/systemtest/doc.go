// Package systemtest holds black-box tests of a running plane. They build the three programs, bring a plane up with `fleet plane up`
// as a newcomer would, and then do what users, attackers and accidents do: through the gateway, at each service's own port, in
// PostgreSQL, in the files and with signals. Each test's name is the promise that it holds the plane to; rows named in comments
// (T5, W22, …) are those of the catalogues of attacks and faults. The package promises that what it started is gone when it ends.
//
// With -short a plane comes up, and its answer and the isolation of its tenants are tested. A3_BIN names a directory with programs
// that are built already. A3_LONG=1 adds the stories, which take minutes each. A3_TEST_PLATFORM=docker has the planes be of containers, beside a
// Docker engine of the tests' own, and plays the tests that OnDocker names.
package systemtest
