"""Named tolerances for `numpy.testing.assert_allclose`, each with its reason. One float32 ulp at 1 is 1.2e-7."""

# Formulas evaluated in float64 on both sides: only the order of the sums differs.
FLOAT64 = {"rtol": 1e-10, "atol": 1e-10}

# Terms of a loss in float32 against float64: similarities of unit vectors carry 2e-7, a temperature of 0.1 makes it
# 2e-6, and the sums of exponentials add a few ulp.
LOSS = {"rtol": 5e-6, "atol": 5e-6}

# Gradients in float32 against central differences in float64 with steps of 1e-5, whose own error is below 1e-7.
GRADIENT = {"rtol": 1e-4, "atol": 2e-5}

# The same float32 formula compiled differently (jit, vmap, another order of the rows).
REORDERED = {"rtol": 5e-6, "atol": 2e-6}

# Values worked out by hand to at least 8 digits.
HAND = {"rtol": 1e-6, "atol": 2e-7}

# log(1 - p) for small p: it is a difference of two logarithms near a logarithm of K, so two ulp at 1 remain, however
# small p is.
SMALL_PROBABILITY_ABSOLUTE = 2.5e-7

# Robust clustering in float32 against float64, by temperature: a cosine of unit rows is off by up to 3e-7, and the
# temperature divides it; at 1 the two sums of exponentials add as much. The docstring and docs/method.md state these.
ROBUST_CLUSTERING_ABSOLUTE = {1.0: 1e-6, 0.1: 4e-6, 0.01: 4e-5}

# A unit vector in float32: the squared entries, their sum, the root and the division each round once.
UNIT = {"rtol": 1e-6, "atol": 1e-6}

# Forward pass of a small network: three matrix products in float32 of values near 1.
FORWARD = {"rtol": 1e-5, "atol": 2e-6}

# Average precision in float32 over at most a few hundred items, when both sides rank alike.
PRECISION = 1e-6

# One Adam step in float32, as a share of the learning rate: the update g / sqrt(v) keeps the relative error of the
# gradient, which cancellation raises well above an ulp for the smallest entries.
ADAM_STEP = 1e-2

# Parameters after an epoch in float32 when batches have other shapes or the program is vectorised: rounding differences
# of the gradient go through Adam's g / sqrt(v), so they scale with the learning rate (1e-3 in those tests).
EPOCH = {"rtol": 0.0, "atol": 1e-6}

# Float32 against PyTorch in float64, relative to the largest entry of what is compared (at least 1): the error of a
# similarity divided by the smallest temperature, 0.05, is 20 * 6e-8, and it enters every entry of the gradient.
PARITY = 1e-5
