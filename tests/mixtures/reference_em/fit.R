# What flexmix and mixtools reach on the data sets here: Rscript tests/mixtures/reference_em/fit.R [task ...]
#
# Writes reference.json: for each task of tasks.json the log likelihood after each of ten random starts (their own way
# of starting, seeds 1 to 10), the number of starts that failed (error, NaN, more than LIMIT seconds), and the
# seconds of processor time for all ten.
# Control: flexmix with its defaults (200 iterations, relative tolerance 1e-6), but no component dropped; mixtools with
# its own (10000 iterations, absolute 1e-8). Debian packages r-cran-flexmix, r-cran-mixtools,
# r-cran-mvtnorm (flexmix asks for it in FLXMCmvnorm), r-cran-jsonlite.

suppressMessages({library(flexmix); library(mixtools); library(jsonlite)})
file_arg <- grep("^--file=", commandArgs(), value = TRUE)
here <- dirname(normalizePath(sub("^--file=", "", file_arg)))
tasks <- fromJSON(file.path(here, "tasks.json"))
only <- commandArgs(trailingOnly = TRUE)
STARTS <- 10
LIMIT <- 60  # seconds a start; hmeEM's Newton steps for the gate need not end
CONTROL <- list(minprior = 0)

fit_once <- function(task, x, y, data) {
  inputs <- paste(colnames(x), collapse = " + ")
  gate <- FLXPmultinom(as.formula(paste("~", if (task$gate == "x") inputs else "1")))
  k <- task$experts
  flex <- function(formula, model) {
    if (task$gate == "1") gate <- FLXPconstant()
    as.numeric(logLik(flexmix(as.formula(formula), data = data, k = k, model = model, concomitant = gate,
                              control = CONTROL)))
  }
  quiet <- function(call) { capture.output(out <- call); out$loglik }
  switch(task$tool,
    flexmix = flex(paste("y1 ~", inputs), FLXMRglm(family = "gaussian")),
    mvnorm = flex("cbind(y1, y2) ~ 1", FLXMCmvnorm(diagonal = FALSE)),
    binomial = flex(paste("cbind(y1, 1 - y1) ~", inputs), FLXMRglm(family = "binomial")),
    multinom = flex(paste("y1 ~", inputs), FLXMRmultinom()),
    hmeEM = quiet(hmeEM(y[, 1], x, k = k)),
    regmixEM = quiet(regmixEM(y[, 1], x, k = k, arbvar = task$covariance == "expert")),
    logisregmixEM = quiet(logisregmixEM(y[, 1], x, k = k)))
}

result <- list()
for (i in seq_len(nrow(tasks))) {
  task <- as.list(tasks[i, ])
  if (length(only) && !task$name %in% only) next
  data <- read.csv(file.path(here, "data", paste0(task$data, ".csv")))
  x <- as.matrix(data[, grepl("^x", names(data)), drop = FALSE])
  y <- as.matrix(data[, grepl("^y", names(data)), drop = FALSE])
  found <- rep(NA_real_, STARTS)
  began <- sum(proc.time()[1:2])
  for (seed in seq_len(STARTS)) {
    set.seed(seed)
    setTimeLimit(cpu = LIMIT, transient = TRUE)
    value <- try(suppressWarnings(fit_once(task, x, y, data)), silent = TRUE)
    setTimeLimit()
    if (is.numeric(value) && length(value) == 1 && is.finite(value)) found[seed] <- value
    else cat(task$name, seed, if (inherits(value, "try-error")) value else "not a number", "\n")
  }
  seconds <- sum(proc.time()[1:2]) - began
  cat(sprintf("%-40s best %.6f  failed %d  %.2f s\n", task$name, max(found, na.rm = TRUE), sum(is.na(found)), seconds))
  result[[task$name]] <- list(log_likelihoods = found, failed = sum(is.na(found)), seconds = round(seconds, 2))
}
versions <- list(R = as.character(getRversion()), flexmix = as.character(packageVersion("flexmix")),
                 mixtools = as.character(packageVersion("mixtools")))
if (!length(only))
  write_json(list(versions = versions, tasks = result), file.path(here, "reference.json"), auto_unbox = TRUE,
             digits = NA, pretty = TRUE, na = "null")
