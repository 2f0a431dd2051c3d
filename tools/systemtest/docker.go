package systemtest

// PlatformVariable names the platform of the planes that tests bring up: local, unless it says docker.
const PlatformVariable = "A3_TEST_PLATFORM"

// OnDocker are the tests that are played on platform docker as well: attacks on the control plane and faults of it, at the doors that a platform
// makes. What is the same program behind the same doors on each is not played twice, and what looks at processes as such is local's.
func OnDocker() []string {
	return []string{
		"TestHostsOfNoTenantAreToldTheSame",
		"TestLicenceEndsAndWhatIsNotLicensedGoesOn",
		"TestNothingIsFoundOfATenantThatLeft",
		"TestNothingOfDevMeansAnythingInProd",
		"TestOperationsKilledAtEveryStepEndAsIfNever",
		"TestPlaneServesWithoutItsRegistry",
		"TestRegistryIsClosedToTenants",
		"TestReleaseChangedInTheRegistryIsNotApplied",
		"TestReportIsOfTheCallersOwnSet",
		"TestRolloutIsCarriedOutAsItWasPlannedOrNotAtAll",
		"TestRouteToWhereNoSetMayBeIsRefused",
		"TestStoryOfAFloodThatFailsNoRequestOfItsNeighbour",
	}
}
