# SPDX-License-Identifier: Apache-2.0
#
# The attestation policy that a broker has without another, in Rego: a text to start from.
#
# It says of evidence what imagers/evidence/appraise.py says. What a verifier established is in
# input.imagers, by the names of reference values; below the name of its TEE are the claims as Trustee
# names them, such as input.snp.measurement. query_reference_value gives the list of values of a
# name, or the one value that was registered without a list, and is undefined where there is none, or
# where it is over.
#
# To know some of your guests by more than this, write another rule beside these, such as
#
#   executables := 3 if {
#       input.imagers.tee == "snp"
#       input.snp.measurement in {"c4a6..."}
#   }

package policy

import rego.v1

# What is not recognised, and should be.
default executables := 33

default hardware := 97

default configuration := 36

trust_claims := {
	"instance-identity": 0,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": hardware,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# The TEEs of which evidence is taken, and what makes a machine of each one's own.
tees := {
	"snp", # snp_launch_measurement
	"tdx", # mr_td, rtmr_1, rtmr_2
	"sgx", # sgx_mr_enclave; or sgx_mr_signer, sgx_isv_prod_id, sgx_isv_svn
	"cca", # cca_realm_initial_measurement, cca_realm_extensible_measurement_*, cca_platform_software
	"csv", # csv_measure, csv_rtmr1, csv_rtmr2; or csv_v1_measure
	"nitro", # nitro_pcr0, nitro_pcr1, nitro_pcr2
	"az-snp-vtpm", # measurement, and snp_pcr* of the appraisal policy
	"az-tdx-vtpm", # mr_td, and tdx_pcr* of the appraisal policy
	"tpm", # trusted_aks, and tpm_pcr* of the appraisal policy
	"nvidia", # all measurements that are not zero
}

# Executables: all claims of one way to know the machine equal a reference value.
executables := 3 if is_known

is_known if {
	input.imagers.tee in tees
	some way in input.imagers.measured
	count(way) > 0
	every name, value in way {
		equals_one(name, value)
	}
}

equals_one(name, value) if value in query_reference_value(name)

equals_one(name, value) if value == query_reference_value(name)

# Some evidence others can make: it counts with its measurement alone.
counts if {
	input.imagers.tee in tees
	input.imagers.counts_if_measured == false
}

counts if is_known

# Hardware: the vendor says that the firmware is up to date, or what you take for that; and each version
# that has reference values equals one.
hardware := 2 if {
	counts
	every name, value in input.imagers.tcb_status {
		is_good_status(name, value)
	}
	every name, value in input.imagers.firmware {
		is_met(name, value)
	}
}

is_good_status(name, value) if equals_one(name, value)

is_good_status(name, value) if {
	value == "UpToDate"
	not is_named(name)
}

# Configuration: nobody can look into the guest, and each setting that has reference values equals one.
configuration := 2 if {
	is_closed
	some name, _ in input.imagers.configured
	is_named(name)
} else := 3 if is_closed

is_closed if {
	counts
	input.imagers.debug == false
	every name, value in input.imagers.configured {
		is_met(name, value)
	}
}

is_met(name, value) if equals_one(name, value)

is_met(name, _) if not is_named(name)

# Of any value, false too. One that is over is met by nothing.
is_named(name) if query_reference_value(name) != null

is_named(name) if name in input.imagers.expired
